"""Remote storage through fsspec: what files there are, and parts of them."""

import os
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import urlsplit

from inferd.config.remote import EXTRAS, PACKAGES
from inferd.plain_text import clipped, escaped

#: Properties that differ once the content does, in the words of each file system; the first one counts.
_VERSION_KEYS = ("ETag", "etag", "blob_id", "md5Hash", "Content-MD5", "Last-Modified")
_TIME_KEYS = ("LastModified", "last_modified", "updated", "Last-Modified")

_WEB = ("http", "https")

#: Maximum number of files of one address.
_MOST_FILES = 100_000

#: The query of an address in a text; that of a signed one is secret.
_QUERY = re.compile(r"\?[^\s'\"<>)]*")

_LONGEST_ERROR = 500

#: Bytes of a name in a directory on Linux.
_LONGEST_NAME = 255


class StorageError(Exception):
    """Remote storage cannot be read, or lacks what was expected. The text is for an operator, without secrets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file as it was listed.

    ``name`` is relative to the folder that was listed, with slashes. ``version`` differs once the content does.
    ``modified`` is in seconds since the epoch, 0 if unknown. ``sha256`` is what the storage says, if it does.
    """

    name: str
    address: str
    size: int
    version: str
    modified: float = 0.0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files in the folder ``name``; ``only`` is the one that the address names, if it is that of a file."""

    name: str
    files: tuple[RemoteFile, ...]
    only: str = ""


class Storage(Protocol):
    """One address in remote storage. Any thread; its calls wait for the network."""

    url: str

    def list(self) -> Listing:
        """Return what is there now. Raises `StorageError`."""

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Return the bytes of ``file`` from ``start`` to ``end``. Raises `StorageError`."""

    def is_current(self, file: RemoteFile) -> bool:
        """Whether ``file`` is still as it was listed. Raises `StorageError`."""


class FsspecStorage:
    """The files at ``url``, by the package for its protocol, which finds credentials by its own means."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.url = url
        self._protocol = urlsplit(url).scheme
        self._timeout_s = timeout_s
        self._opened: tuple[Any, str] | None = None

    def list(self) -> Listing:
        """Return what is there now. Raises `StorageError`."""
        try:
            system, root = self._open()
            system.invalidate_cache()
            return self._web_file(system) if self._protocol in _WEB else self._files(system, root)
        except Exception as error:
            raise self._error(error) from error

    def read(self, file: RemoteFile, start: int, end: int) -> bytes:
        """Return the bytes of ``file`` from ``start`` to ``end``. Raises `StorageError`."""
        try:
            system, _ = self._open()
            content: bytes
            if self._protocol in _WEB:
                from fsspec.asyn import sync  # noqa: PLC0415  (only servers of remote models have it)

                content = sync(system.loop, _web_part, system, file, start, end)
            else:
                content = system.cat_file(file.address, start=start, end=end)
        except Exception as error:
            raise self._error(error, file.address) from error
        if len(content) != end - start:
            msg = f"{shown(file.address)}: expected {end - start} bytes from {start} on, got {len(content)}"
            raise StorageError(msg)
        return content

    def is_current(self, file: RemoteFile) -> bool:
        """Whether ``file`` is still as it was listed. Raises `StorageError`."""
        try:
            system, _ = self._open()
            system.invalidate_cache()
            info = system.info(file.address)
        except Exception as error:
            raise self._error(error, file.address) from error
        return (info["size"], version_of(info)) == (file.size, file.version)

    def _files(self, system: Any, root: str) -> Listing:  # noqa: ANN401 (fsspec has no types)
        found: Mapping[str, Mapping[str, Any]] = system.find(root, detail=True)
        root = root.rstrip("/")
        only = ""
        if root in found:
            root, _, only = root.rpartition("/")
            found = {info["name"]: info for info in system.ls(root, detail=True)}
        if len(found) > _MOST_FILES:
            msg = f"{shown(self.url)}: expected at most {_MOST_FILES} files, found {len(found)}"
            raise StorageError(msg)
        files = [
            remote_file(path.removeprefix(f"{root}/"), f"{self._protocol}://{path.lstrip('/')}", info)
            for path, info in sorted(found.items())
            if info["type"] == "file" and path.startswith(f"{root}/")
        ]
        name = root.rpartition("/")[2]
        if self._protocol == "hf":
            name = name.partition("@")[0]
        return Listing(name, tuple(usable(files)), only)

    def _web_file(self, system: Any) -> Listing:  # noqa: ANN401 (as above)
        info = system.info(self.url)
        name = os.path.basename(urlsplit(self.url).path)  # noqa: PTH119  (no path)
        if info["size"] is None:
            msg = f"{shown(self.url)}: the server does not send the size of the file"
            raise StorageError(msg)
        return Listing("", tuple(usable([remote_file(name, self.url, info)])), name)

    def _open(self) -> tuple[Any, str]:
        """Return the file system and the path in it."""
        if self._opened is None:
            try:
                from fsspec.core import url_to_fs  # noqa: PLC0415  (only servers of remote models have it)

                self._opened = url_to_fs(self.url, skip_instance_cache=True, **self._options())
            except ImportError as error:
                package = PACKAGES[self._protocol]
                extra = EXTRAS.get(package, "remote")
                msg = f"{self._protocol}:// needs the package {package}: pip install 'inferd[{extra}]'"
                raise StorageError(msg) from error
        return self._opened

    def _options(self) -> dict[str, Any]:
        connect_s = min(self._timeout_s, 10.0)
        if self._protocol == "s3":
            # s3fs tries five times itself, each of which would be five tries of botocore.
            once = {"total_max_attempts": 1}
            config = {"connect_timeout": connect_s, "read_timeout": self._timeout_s, "retries": once}
            return {"use_listings_cache": False, "config_kwargs": config}
        if self._protocol in _WEB:
            from aiohttp import ClientTimeout, TraceConfig  # noqa: PLC0415  (as fsspec)

            timeout = ClientTimeout(total=None, sock_connect=connect_s, sock_read=self._timeout_s)
            # Its own one trusts those CAs that the system had when it was first imported.
            client = {"timeout": timeout, "trust_env": True}
            if self._protocol == "http":
                return {"client_kwargs": client}
            traces = TraceConfig()
            traces.on_request_redirect.append(_require_https)
            return {"client_kwargs": {**client, "trace_configs": [traces]}, "ssl": ssl.create_default_context()}
        return {}

    def _error(self, error: Exception, address: str = "") -> StorageError:
        if isinstance(error, StorageError):
            return error
        where = shown(address or self.url)
        # fsspec takes all that goes wrong at a web address for a file that is not there.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
        if isinstance(cause, StorageError):
            return cause
        if cause is None or getattr(cause, "status", None) == HTTPStatus.NOT_FOUND:
            return StorageError(f"{where}: there is no such file or directory, or no access to it")
        return StorageError(clipped(f"{where}: {cause_text(cause, self.url)}", _LONGEST_ERROR))


def shown(url: str) -> str:
    """Return ``url`` without what may be secret: user, password and query."""
    parts = urlsplit(url)
    return escaped(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl())


def cause_text(cause: BaseException, url: str) -> str:
    """Return what a library says of an error at ``url``, without what may be secret."""
    text = " ".join(_without_user(_QUERY.sub("", str(cause)), url).split())
    return escaped(f"{type(cause).__name__}: {text}")


def _without_user(text: str, url: str) -> str:
    """Return ``text`` without user and password of ``url``."""
    user, separator, _ = urlsplit(url).netloc.rpartition("@")
    return text.replace(user + separator, "") if user else text


async def _require_https(_: object, __: object, redirect: Any) -> None:  # noqa: ANN401 (aiohttp need not be there)
    """Raise `StorageError` for a redirect from https to http, whose answers can be tampered with."""
    location = redirect.response.headers.get("Location", "")
    if urlsplit(location).scheme == "http":
        raise StorageError(f"{shown(str(redirect.url))}: redirected to {shown(location)}, which is not https")


async def _web_part(system: Any, file: RemoteFile, start: int, end: int) -> bytes:  # noqa: ANN401 (fsspec has no types)
    """Return a part of ``file``; at most one piece more than that is read, whatever the server sends.

    fsspec would read all that comes, which is the whole file from servers that send no parts. They can send small ones.
    """
    is_whole = start == 0 and end == file.size
    # A file that is compressed on its way has another size than it was listed with, and no parts.
    headers = {"Accept-Encoding": "identity", **({} if is_whole else {"Range": f"bytes={start}-{end - 1}"})}
    session = await system.set_session()
    async with session.get(system.encode_url(file.address), headers=headers, **system.kwargs) as response:
        response.raise_for_status()
        if not is_whole and response.status != HTTPStatus.PARTIAL_CONTENT:
            msg = f"{shown(file.address)}: the server sends no parts of files, of which this has too many"
            raise StorageError(msg)
        content = bytearray()
        async for piece in response.content.iter_any():
            content += piece
            if len(content) > end - start:
                break
        return bytes(content)


def remote_file(name: str, address: str, info: Mapping[str, Any]) -> RemoteFile:
    """Return the file that fsspec describes in ``info``."""
    lfs = info.get("lfs")
    return RemoteFile(
        name=name,
        address=address,
        size=int(info["size"]),
        version=version_of(info),
        modified=_seconds(next((info[key] for key in _TIME_KEYS if info.get(key)), None)),
        sha256=getattr(lfs, "sha256", "") or "",
    )


def version_of(info: Mapping[str, Any]) -> str:
    """Return what identifies the content of a file; empty if the storage reports nothing."""
    return str(next((info[key] for key in _VERSION_KEYS if info.get(key)), ""))


def _seconds(time: object) -> float:
    if isinstance(time, str):
        try:
            time = parsedate_to_datetime(time) if "," in time else datetime.fromisoformat(time)
        except ValueError:
            return 0.0
    return time.timestamp() if isinstance(time, datetime) else 0.0


def usable(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return those of ``files`` that can be local files below a directory.

    Object stores have names that would lead out of it, and objects in the place of directories.
    """
    named = {file.name: file for file in files if _is_local_name(file.name)}
    folders = {"/".join(parts[:end]) for parts in (name.split("/") for name in named) for end in range(1, len(parts))}
    return [file for name, file in named.items() if name not in folders]


def _is_local_name(name: str) -> bool:
    return "\0" not in name and all(
        part and not part.startswith(".") and len(os.fsencode(part)) <= _LONGEST_NAME for part in name.split("/")
    )
