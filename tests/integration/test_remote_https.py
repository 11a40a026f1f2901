"""Models at https addresses."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inferd.config.remote import RemoteSettings
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource
from inferd.models.remote import RemoteRepositories
from inferd.remote import download
from inferd.runtime.errors import ModelLoadError
from tests import onnx_models
from tests.certificates import LOCAL_NAMES, Authority
from tests.patience import PATIENCE_S, eventually

_PART = 1000
_PIECE = 2**16
_MODEL = onnx_models.lookup(_PART).SerializeToString()
_OTHER = onnx_models.lookup(_PART + 1).SerializeToString()
_SMALL = onnx_models.lookup(1).SerializeToString()


class _Handler(BaseHTTPRequestHandler):
    """Answers as its server's attributes say."""

    server: "_Server"

    def do_HEAD(self) -> None:
        self._answer(send_content=False)

    def do_GET(self) -> None:
        self._answer(send_content=True)

    def _answer(self, *, send_content: bool) -> None:
        if self.server.location:
            self.send_response(302)
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if not self.path.startswith("/models/words.onnx"):
            self.send_error(404)
            return
        content, bounds = self.server.content, self.headers["Range"]
        if bounds and self.server.sends_parts:
            start, end = map(int, bounds.removeprefix("bytes=").split("-"))
            content = content[start : end + 1]
        self.send_response(206 if bounds and self.server.sends_parts else 200)
        self.send_header("Content-Length", str(len(content)))
        for name, value in self.server.properties.items():
            self.send_header(name, value)
        self.end_headers()
        if send_content:
            self._send(content)

    def _send(self, content: bytes) -> None:
        """Send it in pieces, until the client has enough."""
        sent = 0
        with suppress(OSError):
            for start in range(0, len(content), _PIECE):
                sent += self.wfile.write(content[start : start + _PIECE])
        self.server.sent.append(sent)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class _Server(ThreadingHTTPServer):
    """Sends ``content``, or parts of it; ``sent`` has the sizes of its answers."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.content = _MODEL
        self.properties = {"ETag": '"1"', "Last-Modified": "Mon, 02 Nov 2026 00:00:00 GMT"}
        self.sends_parts = True
        self.location = ""
        self.sent: list[int] = []

    @property
    def address(self) -> str:
        """The address of the model."""
        return f"https://localhost:{self.server_port}/models/words.onnx"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """A server whose CA is trusted, and small parts."""
    monkeypatch.setattr(download, "_PART_BYTES", _PART)
    monkeypatch.setattr(download, "_RETRY_S", 0.0)
    authority = Authority()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.save(tmp_path)))
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    with _Server(context) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _source(folder: Path, address: str, **settings: object) -> ModelSource:
    repositories = RemoteRepositories(RemoteSettings(cache=folder / "cache", timeout_s=PATIENCE_S, **settings))
    (source,) = repositories.sources(address)
    return source


def _fetch(source: ModelSource) -> object:
    assert source.remote is not None
    return source.remote.fetch(source.path, lambda: False)


def test_downloads_model_once(tmp_path: Path, server: _Server) -> None:
    """In parts, and once."""
    source = _source(tmp_path, server.address)
    assert (source.name, source.version) == ("words", "1")
    _files = _fetch(source)
    assert source.path.read_bytes() == _MODEL
    # The server's threads count what they have sent, perhaps after it has come.
    eventually(lambda: sum(server.sent) >= len(_MODEL), "all is counted")
    assert sum(server.sent) == len(_MODEL)
    _same = _fetch(_source(tmp_path, f"other={server.address}"))
    assert sum(server.sent) == len(_MODEL)


def test_downloads_changed_model(tmp_path: Path, server: _Server) -> None:
    """By its ETag."""
    _files = _fetch(_source(tmp_path, server.address))
    server.content = _OTHER
    server.properties = {"ETag": '"2"'}
    source = _source(tmp_path, server.address)
    _changed = _fetch(source)
    assert source.path.read_bytes() == _OTHER


def test_rejects_server_without_ranges(tmp_path: Path, server: _Server) -> None:
    """Can send small files only."""
    server.sends_parts = False
    with pytest.raises(
        ModelLoadError, match=r"words.onnx: the server sends no parts of files, of which this has too many"
    ):
        _fetch(_source(tmp_path, server.address))
    server.content, server.properties = _SMALL, {"ETag": '"2"'}
    source = _source(tmp_path, server.address)
    _files = _fetch(source)
    assert source.path.read_bytes() == _SMALL


def test_reads_no_more_than_it_asked_for(tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends all of a large file, or a file that has grown, does not fill the memory."""
    large = bytes(64 * 2**20)
    monkeypatch.setattr(download, "_TRIES", 1)
    server.content, server.sends_parts = large, False
    with pytest.raises(ModelLoadError, match="the server sends no parts"):
        _fetch(_source(tmp_path, server.address))
    server.content, server.properties = _SMALL, {"ETag": '"2"'}
    source = _source(tmp_path, server.address)
    server.content = large
    with pytest.raises(ModelLoadError, match=rf"words.onnx: expected {len(_SMALL)} bytes from 0 on, got"):
        _fetch(source)
    # The server may not have noticed yet that nobody reads the rest.
    assert all(sent < len(large) for sent in server.sent)


def test_requires_checksum_without_etag(tmp_path: Path, server: _Server) -> None:
    """Need a checksum."""
    server.properties = {}
    with pytest.raises(
        RepositoryError, match=r"sends neither ETag nor Last-Modified.*: set its SHA-256 in remote.checks"
    ):
        _source(tmp_path, server.address)
    checksums = {server.address: hashlib.sha256(_MODEL).hexdigest()}
    _files = _fetch(_source(tmp_path, server.address, checksums=checksums))


def test_nothing_there(tmp_path: Path, server: _Server) -> None:
    """Secrets of the address are not shown."""
    address = server.address.replace("words", "nothing")
    with pytest.raises(RepositoryError) as error:
        _source(tmp_path, f"{address}?signature=secret")
    assert str(error.value) == f"{address}: there is no such file or directory, or no access to it"


def test_rejects_redirect_to_plain_http(tmp_path: Path, server: _Server) -> None:
    """Anybody between could send another model."""
    server.location = "http://localhost:1/words.onnx?signature=secret"
    with pytest.raises(RepositoryError) as error:
        _source(tmp_path, server.address)
    expected = f"{server.address}: redirected to http://localhost:1/words.onnx, which is not https"
    assert str(error.value) == expected


def test_reports_untrusted_server(tmp_path: Path, server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not taken for one that has no such file."""
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority("another").save(tmp_path, "other")))
    with pytest.raises(
        RepositoryError, match=r"words.onnx: ClientConnectorCertificateError: .*certificate verify failed"
    ):
        _source(tmp_path, f"{server.address}?signature=secret")
