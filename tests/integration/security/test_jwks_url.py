"""Fetching the keys of an issuer over HTTP."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest

from inferd.config.security import SecuritySettings
from inferd.security.authentication.json_web_tokens import fetch
from inferd.security.setup import Security
from tests.issuer import AUDIENCE, NAME, Issuer, jwks
from tests.patience import eventually
from tests.unit.security.fakes import FakeCall, bearer


class KeyServer(HTTPServer):
    """Serves a status and a content for each path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, tuple[int, bytes]] = {}
        self.requested: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(BaseHTTPRequestHandler):
    server: KeyServer

    def do_GET(self) -> None:
        self.server.requested.append(self.path)
        status, content = self.server.pages[self.path]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url("/keys"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    server = KeyServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_fetches_the_content(key_server: KeyServer) -> None:
    """Unchanged."""
    key_server.pages["/keys"] = (200, b"keys")
    assert fetch(key_server.url("/keys")) == b"keys"


def test_rejects_redirects_errors_and_large_content(key_server: KeyServer) -> None:
    """A redirect might lead away from https."""
    key_server.pages |= {"/moved": (302, b""), "/none": (404, b""), "/huge": (200, b"x" * (1024 * 1024 + 1))}
    for path in key_server.pages:
        with pytest.raises(OSError, match=r"302|404|at most"):
            fetch(key_server.url(path))
    assert "/keys" not in key_server.requested


def test_rotates_keys_without_a_restart(key_server: KeyServer) -> None:
    """A token is accepted once its key is published, also while the URL is down, and not after its key is removed."""
    old, new = Issuer("old"), Issuer("new")
    key_server.pages["/keys"] = (500, b"")
    settings = SecuritySettings(
        jwt={"jwks_url": key_server.url("/keys"), "issuer": NAME, "audience": [AUDIENCE], "refresh_s": 1}
    )
    security = Security(settings)
    (interceptor,) = security.interceptors

    def is_accepted(issuer: Issuer) -> bool:
        rejection = interceptor.started(FakeCall("/inferd.v1.InferenceService/Infer", bearer(issuer.token())))
        assert rejection is None or rejection.code is grpc.StatusCode.UNAUTHENTICATED
        return rejection is None

    security.start()
    try:
        assert not is_accepted(old)
        assert security.jwks_age_s() > 0
        assert security.failures()["jwks_url"] == 1
        key_server.pages["/keys"] = (200, jwks(old.jwk(), new.jwk()).encode())
        eventually(lambda: is_accepted(old) and is_accepted(new), "both keys are accepted")
        key_server.pages["/keys"] = (200, jwks(new.jwk()).encode())
        eventually(lambda: not is_accepted(old), "the old key is rejected")
        failures = security.failures()["jwks_url"]
        key_server.pages["/keys"] = (500, b"")
        eventually(lambda: security.failures()["jwks_url"] > failures, "the URL is down")
        assert is_accepted(new)
    finally:
        security.stop()
