"""The HTTP port over TLS, through real sockets."""

import http.client
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge

from inferd.config.security import TlsSettings
from inferd.http.server import HttpServer
from inferd.observability.monitoring import Health, monitoring_server
from inferd.security.tls.server_tls import ServerTls
from tests.certificates import LOCAL_NAMES, Authority, Pair
from tests.patience import PATIENCE_S, eventually

Serve = Callable[..., HttpServer]


@pytest.fixture
def tls(tmp_path: Path, authority: Authority) -> ServerTls:
    """A certificate for this machine."""
    return loaded(tmp_path, authority.issue(*LOCAL_NAMES))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports, and stop them."""
    servers: list[HttpServer] = []

    def _serve(tls: ServerTls, timeout_s: float = 30.0) -> HttpServer:
        registry = CollectorRegistry()
        Gauge("answer", "of all", registry=registry).set(42)
        ready = Health(ok=True)
        server = monitoring_server(
            host="127.0.0.1",
            port=0,
            registry=registry,
            readiness=lambda: ready,
            timeout_s=timeout_s,
            tls=tls.metrics_context,
        )
        server.start()
        servers.append(server)
        return server

    yield _serve
    for server in servers:
        server.stop()


def loaded(folder: Path, pair: Pair, clients: Authority | None = None) -> ServerTls:
    files = pair.save(folder)
    ca = {} if clients is None else {"client_ca_file": clients.save(folder), "client_certificates": "required"}
    tls = ServerTls(TlsSettings.model_validate({"cert_file": files.certificate, "key_file": files.key, **ca}))
    tls.load()
    return tls


def context(authority: Authority, own: Pair | None = None, folder: Path | None = None) -> ssl.SSLContext:
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    if own is not None and folder is not None:
        files = own.save(folder, "client")
        trusting.load_cert_chain(files.certificate, files.key)
    return trusting


def get(server: HttpServer, path: str, trusting: ssl.SSLContext) -> tuple[int, bytes]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE_S, context=trusting)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def raw(server: HttpServer, data: bytes, trusting: ssl.SSLContext) -> bytes:
    """Send bytes, and return all that the server sends until it closes the connection."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection,
        trusting.wrap_socket(connection, server_hostname="127.0.0.1") as encrypted,
    ):
        encrypted.sendall(data)
        return b"".join(iter(lambda: encrypted.recv(65536), b""))


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


def test_metrics_and_probes(serve: Serve, tls: ServerTls, authority: Authority) -> None:
    """As without TLS."""
    server = serve(tls)
    status, body = get(server, "/metrics", context(authority))
    assert (status, b"answer 42.0" in body) == (200, True)
    assert get(server, "/livez", context(authority)) == (200, b"ok\n")
    assert get(server, "/readyz", context(authority)) == (200, b"ok\n")


def test_unexpected_body(serve: Serve, tls: ServerTls, authority: Authority) -> None:
    """The response is complete, and ends with a close notification."""
    sent = b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000
    assert raw(serve(tls), sent, context(authority)).startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")


def test_changed_certificate(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """New connections get it, also from another authority; open ones continue."""
    tls = loaded(tmp_path, authority.issue(*LOCAL_NAMES))
    server = serve(tls)
    other = Authority("other")
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection,
        context(authority).wrap_socket(connection, server_hostname="127.0.0.1") as encrypted,
    ):
        other.issue(*LOCAL_NAMES).save(tmp_path)
        tls.load()
        encrypted.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        assert encrypted.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert get(server, "/livez", context(other))[0] == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        get(server, "/livez", context(authority))


def test_client_certificates(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Required for metrics, not for probes; one of another CA fails the handshake."""
    clients, others = Authority("clients"), Authority("others")
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES), clients))
    without = context(authority)
    assert get(server, "/livez", without) == (200, b"ok\n")
    assert get(server, "/metrics", without) == (403, b"expected a client certificate\n")
    with_own = context(authority, clients.issue("prometheus"), tmp_path)
    assert get(server, "/metrics", with_own)[0] == 200
    foreign = context(authority, others.issue("prometheus"), tmp_path)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(server, "/livez", foreign)


def test_expiring_client_certificate(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Resuming its session does not extend it."""
    clients = Authority("clients")
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES), clients))
    session: ssl.SSLSession | None = None

    def answer() -> bytes:
        nonlocal session
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection,
            brief.wrap_socket(connection, server_hostname="127.0.0.1", session=session) as encrypted,
        ):
            assert bool(encrypted.session_reused) == (session is not None)
            session = encrypted.session
            encrypted.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            return encrypted.recv(12)

    for valid_s in (2, 8, 32):  # As long as this machine needs to use it.
        brief = context(authority, clients.issue("prometheus", not_after=timedelta(seconds=valid_s)), tmp_path)
        # Its sessions start with the handshake.
        brief.maximum_version = ssl.TLSVersion.TLSv1_2
        session = None
        with suppress(ssl.SSLError, ConnectionError):
            if answer() == b"HTTP/1.1 200":
                break
    eventually(lambda: answer() == b"HTTP/1.1 403", "it has expired")


def test_minimum_tls_version(serve: Serve, tls: ServerTls, authority: Authority) -> None:
    """TLS 1.2."""
    old = context(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert get(serve(tls), "/livez", old)[0] == 200
    assert tls.metrics_context().minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_endless_handshake(serve: Serve, tls: ServerTls, sent: bytes) -> None:
    """Closed at the time limit of a request."""
    server = serve(tls, timeout_s=0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_plain_http(serve: Serve, tls: ServerTls, authority: Authority, caplog: pytest.LogCaptureFixture) -> None:
    """Closed, and not logged."""
    server = serve(tls)
    with caplog.at_level(logging.INFO):
        for sent in (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", bytes(range(256)) * 64):
            with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as connection:
                connection.sendall(sent)
                assert not received(connection).startswith(b"HTTP")
        assert get(server, "/livez", context(authority))[0] == 200
    assert caplog.records == []
