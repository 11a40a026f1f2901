"""Keys of an issuer, fetched over HTTP from where it publishes them."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest

from inferd.config.security import SecuritySettings
from inferd.security.authentication.json_web_tokens import fetch
from inferd.security.setup import Security
from tests.issuer import AUDIENCE, NAME, Issuer, jwks
from tests.load import eventually
from tests.unit.security.fakes import FakeCall, bearer


class Published(HTTPServer):
    """Answers each path with a status and a content."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: Published

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, content = self.server.pages[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url("/keys"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def published() -> Iterator[Published]:
    server = Published()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_published_is_fetched(published: Published) -> None:
    """As it is."""
    published.pages["/keys"] = (200, b"keys")
    assert fetch(published.url("/keys")) == b"keys"


def test_redirects_errors_and_floods_are_refused(published: Published) -> None:
    """A redirect might lead away from https; nothing of the other side's texts is told."""
    published.pages |= {"/moved": (302, b""), "/none": (404, b""), "/huge": (200, b"x" * (1024 * 1024 + 1))}
    for path in published.pages:
        with pytest.raises(OSError, match=r"302|404|at most"):
            fetch(published.url(path))
    assert "/keys" not in published.asked


def test_keys_rotate_without_a_restart(published: Published) -> None:
    """A token is taken as soon as its key has been published, and while the URL is down; an old key goes."""
    old, new = Issuer("old"), Issuer("new")
    published.pages["/keys"] = (500, b"")
    settings = SecuritySettings(
        jwt={"jwks_url": published.url("/keys"), "issuer": NAME, "audience": [AUDIENCE], "refresh_s": 1}
    )
    security = Security(settings)
    (interceptor,) = security.interceptors

    def is_let_in(issuer: Issuer) -> bool:
        refusal = interceptor.started(FakeCall("/inferd.v1.InferenceService/Infer", bearer(issuer.token())))
        assert refusal is None or refusal.code is grpc.StatusCode.UNAUTHENTICATED
        return refusal is None

    security.start()
    try:
        assert not is_let_in(old)
        assert security.jwks_age_s() > 0
        assert security.failures()["jwks_url"] == 1
        published.pages["/keys"] = (200, jwks(old.jwk(), new.jwk()).encode())
        eventually(lambda: is_let_in(old) and is_let_in(new), "both keys are known")
        published.pages["/keys"] = (200, jwks(new.jwk()).encode())
        eventually(lambda: not is_let_in(old), "the old key is gone")
        failures = security.failures()["jwks_url"]
        published.pages["/keys"] = (500, b"")
        eventually(lambda: security.failures()["jwks_url"] > failures, "the URL is down")
        assert is_let_in(new)
    finally:
        security.stop()
