"""List, open and write files, on this machine or in remote storage through fsspec."""

import glob
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import pyarrow as pa

from inferd.batch.errors import BatchError, UsageError
from inferd.config.remote import EXTRAS, PACKAGES
from inferd.plain_text import escaped
from inferd.remote import storage
from inferd.remote.storage import cause_text, version_of

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Listings are not cached: they change while jobs run.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {"s3": {"use_listings_cache": False}}

_WILDCARDS = re.compile(r"[*?\[]")
#: Their addresses are not globs: a question mark begins the query.
_WEB = ("http", "https")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file as it was listed. ``version`` changes with the content."""

    address: str
    size: int
    version: str


def is_remote(address: str) -> bool:
    """Return True for an address of remote storage, such as s3://bucket/name."""
    return _ADDRESS.match(address) is not None


def file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for a remote ``address``, and its path there. Raises `UsageError`."""
    from fsspec.core import url_to_fs  # noqa: PLC0415  (only jobs with remote files need it)

    protocol = urlsplit(address).scheme
    try:
        system, path = url_to_fs(address, **_OPTIONS.get(protocol, {}))
    except ImportError as error:
        package = PACKAGES.get(protocol, protocol)
        extra = EXTRAS.get(package, "remote")
        raise UsageError(f"{protocol}:// needs the package {package}: pip install 'inferd[{extra}]'") from error
    except ValueError as error:
        raise UsageError(f"{shown(address)}: {cause_text(error, address)}") from None
    return system, str(path)


def shown(address: str) -> str:
    """Return ``address`` for messages, without secrets or control characters."""
    return storage.shown(address) if is_remote(address) else escaped(address)


@contextmanager
def errors_of(address: str, advice: str = "") -> Iterator[None]:
    """Context in which errors of storage become `BatchError`, with ``advice`` at the end.

    A missing file or bucket is a `UsageError`: another try would not find it either.
    """
    try:
        yield
    except BatchError:
        raise
    except FileNotFoundError as error:
        what = "file, directory or bucket" if is_remote(address) else "file or directory"
        raise UsageError(_text(address, f"there is no such {what}", advice)) from error
    # Libraries of remote storage raise exceptions of their own classes.
    except Exception as error:
        if not isinstance(error, OSError) and not is_remote(address):
            raise
        text = cause_text(error, address) if is_remote(address) else getattr(error, "strerror", None) or str(error)
        raise BatchError(_text(address, text, advice)) from error


def _text(address: str, cause: str, advice: str) -> str:
    return f"{shown(address)}: {cause}" + (f"; {advice}" if advice else "")


def list_files(pattern: str) -> list[FileInfo]:
    """Return the files of ``pattern``, sorted by address: one file, those in and below a folder, or those of a glob.

    In folders, names that begin with a dot or an underscore are left out, as other readers of data sets do. Raises
    `BatchError`.
    """
    with errors_of(pattern):
        found = _remote_files(pattern) if is_remote(pattern) else _local_files(pattern)
        # A glob may match a folder and the files in it.
        return sorted(set(found), key=lambda each: each.address)


def open_input(address: str) -> BinaryIO:
    """Open the file at ``address``, which is seekable. Raises `BatchError`."""
    with errors_of(address):
        if not is_remote(address):
            return Path(address).open("rb")
        system, path = file_system(address)
        file: BinaryIO = system.open(path, "rb")
        return file


def _local_files(pattern: str) -> Iterator[FileInfo]:
    # A file may have wildcards in its name.
    if os.path.exists(pattern) or not _WILDCARDS.search(pattern):  # noqa: PTH110  (a text, which may be no path)
        matches = [pattern]
    else:
        found = glob.glob(pattern, recursive=True)  # noqa: PTH207  (Path has no absolute patterns)
        matches = [match for match in found if _is_meant(match, pattern)]
    for match in matches:
        if Path(match).is_dir():
            for folder, inner, names in os.walk(match):
                inner[:] = filter(_is_data, inner)
                for name in filter(_is_data, names):
                    path = os.path.join(folder, name)  # noqa: PTH118  (as the user wrote it)
                    # Leaves out pipes and sockets.
                    if Path(path).is_file():
                        yield _local(path)
        else:
            yield _local(match)


def _local(address: str) -> FileInfo:
    found = Path(address).stat()
    return FileInfo(address, found.st_size, str(found.st_mtime_ns))


def _remote_files(pattern: str) -> Iterable[FileInfo]:
    system, path = file_system(pattern)
    if _WILDCARDS.search(path) and urlsplit(pattern).scheme not in _WEB:
        matches = [entry for name, entry in system.glob(path, detail=True).items() if _is_meant(name, path)]
        entries = [each for match in matches for each in _below(system, match)]
    else:
        entries = _below(system, system.info(path))
    return [
        FileInfo(system.unstrip_protocol(each["name"]), int(each["size"] or 0), version_of(each)) for each in entries
    ]


def _below(system: Any, entry: Any) -> list[Any]:  # noqa: ANN401  (fsspec has no types)
    if entry["type"] != "directory":
        return [entry]
    prefix = entry["name"].rstrip("/")
    inside = system.find(prefix, detail=True).values()
    return [each for each in inside if all(map(_is_data, each["name"][len(prefix) :].strip("/").split("/")))]


def _is_meant(match: str, pattern: str) -> bool:
    """Return False for a hidden file, or one in a hidden folder, unless the pattern itself names a hidden name."""
    fixed = pattern[: _WILDCARDS.search(pattern).start()].rpartition("/")[0]  # type: ignore[union-attr]  # it is a glob
    named = {part[0] for part in pattern.removeprefix(fixed).split("/") if part}
    return all(_is_data(part) or part[0] in named for part in match.removeprefix(fixed).split("/") if part)


def _is_data(name: str) -> bool:
    return not name.startswith((".", "_"))


def output_file(file: Any, errors: Callable[[], AbstractContextManager[None]]) -> BinaryIO:  # noqa: ANN401  (see below)
    """Wrap ``file``, of this machine or of fsspec, so that its errors become `BatchError` by ``errors``.

    Errors of the inputs that are read meanwhile are so never taken for errors of the output.
    """
    return cast("BinaryIO", _OutputFile(file, errors))


class _OutputFile(io.RawIOBase):
    def __init__(self, file: Any, errors: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401  (above)
        self._file = file
        self._errors = errors

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401  (bytes, or what has their memory)
        """Append all of ``content``."""
        with self._errors():
            self._file.write(content)
        return memoryview(content).nbytes

    def tell(self) -> int:
        """Return the number of bytes written."""
        return int(self._file.tell())


def native_file(address: str) -> pa.NativeFile:
    """Open the file at ``address`` for pyarrow; it is seekable. Raises `BatchError`."""
    with errors_of(address):
        return pa.PythonFile(_Remote(address), mode="r") if is_remote(address) else pa.OSFile(address)


def raw_file(address: str) -> BinaryIO:
    """Open the file at ``address`` without a buffer, for large reads. Raises `BatchError`."""
    with errors_of(address):
        return cast(BinaryIO, _Remote(address) if is_remote(address) else Path(address).open("rb", buffering=0))


class _Remote(io.RawIOBase):
    """A file in remote storage, whose errors of any class are `BatchError`, so that they are not taken for damage."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._file: BinaryIO = open_input(address)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        with errors_of(self._address):
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()
        super().close()
