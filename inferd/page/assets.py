"""Serve the static files of the page, with headers that restrict what a browser does with them."""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from inferd.http.messages import HttpBody, HttpMessage
from inferd.rpc import Metadata, UnaryCall

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}

INDEX = "index.html"

#: Scripts and styles come from this server's files only, and nothing can be embedded in another site's page.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

#: Headers of all files and data of the page.
SAFE_HEADERS = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)

_NOT_FOUND = HttpBody(
    b"The status page has no such file.\n", (("Content-Type", _TYPES["txt"]), *SAFE_HEADERS), status=404
)


class Asset:
    """One file: its answers, plain, compressed and unchanged, and its ``ETag``."""

    def __init__(self, name: str, content: bytes) -> None:
        self.tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        # Revalidated each time, which costs little, so that all files of a page have the same version.
        common = (("ETag", self.tag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding"), *SAFE_HEADERS)
        headers = (("Content-Type", _TYPES[name.rpartition(".")[2]]), *common)
        # mtime=0: a timestamp would make the files of each start differ.
        packed = gzip.compress(content, mtime=0)
        self.plain = HttpBody(content, headers)
        self.packed = HttpBody(packed, (*headers, ("Content-Encoding", "gzip")))
        self.unchanged = HttpBody(b"", common, status=304)


class Assets:
    """All files of the page by name, read once. The handlers are called on the poll thread."""

    def __init__(self, folder: Traversable | None = None) -> None:
        folder = files("inferd.page") / "static" if folder is None else folder
        self._assets: Mapping[str, Asset] = {file.name: Asset(file.name, file.read_bytes()) for file in _files(folder)}

    def index(self, call: UnaryCall, _: HttpMessage) -> None:
        """Answer with the page itself."""
        call.reply(self.answer(INDEX, call.metadata))

    def file(self, call: UnaryCall, message: HttpMessage) -> None:
        """Answer with the file of the path."""
        call.reply(self.answer(message.path["file"], call.metadata))

    def answer(self, name: str, headers: Metadata) -> HttpBody:
        """Return the answer to a request with ``headers`` for a file."""
        asset = self._assets.get(name)
        if asset is None:
            return _NOT_FOUND
        if not {asset.tag, "*"}.isdisjoint(_values(headers, "if-none-match")):
            return asset.unchanged
        return asset.packed if "gzip" in _values(headers, "accept-encoding") else asset.plain


def _files(folder: Traversable) -> Iterator[Traversable]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _files(each)
        elif each.name.rpartition(".")[2] in _TYPES:
            yield each


def _values(headers: Metadata, name: str) -> list[str]:
    """Return the comma-separated values of a header, without weights and marks of weak comparison."""
    texts = [str(value) for key, value in headers if key == name]
    return [each.partition(";")[0].strip().removeprefix("W/") for text in texts for each in text.split(",")]
