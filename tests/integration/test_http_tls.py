"""The HTTP port over TLS: reload, client certificates, and handshakes that never end, through real sockets."""

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from inferd.config.security import TlsSettings
from inferd.http.connections import Connection
from inferd.http.limits import ConnectionLimits
from inferd.http.server import HttpServer
from inferd.security.tls.server_tls import ServerTls
from tests.certificates import LOCAL_NAMES, Authority, Pair
from tests.patience import PATIENCE_S, eventually
from tests.raw_http import RawAnswer, answers, connect, read_answer, until_closed

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
SPIFFE_ID = "spiffe://inferd.test/alice"

Serve = Callable[..., HttpServer]


async def peer(request: web.BaseRequest) -> web.Response:
    """Answer with the SPIFFE ID of the client."""
    connection = request.protocol
    assert isinstance(connection, Connection)
    (spiffe_id,) = connection.peer.auth_context().get("peer_spiffe_id", (b"none",))
    return web.Response(body=spiffe_id)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports, and stop them."""
    with ExitStack() as stack:

        def _serve(tls: ServerTls, **limits: float) -> HttpServer:
            chosen = ConnectionLimits(**limits)  # type: ignore[arg-type]
            server = HttpServer("http", "127.0.0.1", 0, peer, tls=tls.http_context, limits=chosen)
            server.start()
            stack.callback(server.stop)
            return server

        yield _serve


def loaded(folder: Path, pair: Pair, clients: Authority | None = None) -> ServerTls:
    files = pair.save(folder)
    ca = {} if clients is None else {"client_ca_file": clients.save(folder), "client_certificates": "required"}
    tls = ServerTls(TlsSettings.model_validate({"cert_file": files.certificate, "key_file": files.key, **ca}))
    tls.load()
    return tls


def trusting(authority: Authority, folder: Path, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own is not None:
        files = own.save(folder, "client")
        context.load_cert_chain(files.certificate, files.key)
    return context


def encrypted(server: HttpServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    return context.wrap_socket(connect(server.port), server_hostname="127.0.0.1")


def ask(server: HttpServer, context: ssl.SSLContext) -> RawAnswer:
    with encrypted(server, context) as connection:
        connection.sendall(LAST)
        (answer,) = answers(until_closed(connection))
    return answer


def test_changed_certificate(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """New connections get it, also from another authority; open ones continue."""
    tls = loaded(tmp_path, authority.issue(*LOCAL_NAMES))
    server = serve(tls)
    other = Authority("other")
    with encrypted(server, trusting(authority, tmp_path)) as open_one:
        open_one.sendall(GET)
        read_answer(open_one)
        other.issue(*LOCAL_NAMES).save(tmp_path)
        tls.load()
        open_one.sendall(GET)
        assert read_answer(open_one).status == 200
    assert ask(server, trusting(other, tmp_path)).status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(server, trusting(authority, tmp_path))


def test_client_certificates(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Required, and the client is who its certificate says; one of another CA fails the handshake."""
    clients = Authority("clients")
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES), clients))
    assert ask(server, trusting(authority, tmp_path, clients.issue(SPIFFE_ID))).body == SPIFFE_ID.encode()
    assert ask(server, trusting(authority, tmp_path, clients.issue("a.test"))).body == b"none"
    for pair in (None, Authority("others").issue(SPIFFE_ID)):
        with pytest.raises((ssl.SSLError, ConnectionError, ValueError)):
            ask(server, trusting(authority, tmp_path, pair))


def test_revoked_authority(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Sessions of its clients cannot be resumed after it has been replaced."""
    clients = Authority("clients")
    tls = loaded(tmp_path, authority.issue(*LOCAL_NAMES), clients)
    server = serve(tls)
    context = trusting(authority, tmp_path, clients.issue(SPIFFE_ID))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with encrypted(server, context) as connection:
        session = connection.session
    Authority("others").save(tmp_path)
    tls.load()
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(server.port) as plain:
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session).recv(1)


def test_expiring_client_certificate(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Resuming its session does not extend it."""
    clients = Authority("clients")
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES), clients))
    session: ssl.SSLSession | None = None

    def is_served() -> bool:
        nonlocal session
        with (
            suppress(ssl.SSLError, ConnectionError),
            connect(server.port) as plain,
            brief.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection,
        ):
            session = connection.session
            connection.sendall(GET)
            return connection.recv(12) == b"HTTP/1.1 200"
        return False

    for valid_s in (2, 8, 32):  # As long as this machine needs to use it.
        brief = trusting(authority, tmp_path, clients.issue(SPIFFE_ID, not_after=timedelta(seconds=valid_s)))
        brief.maximum_version = ssl.TLSVersion.TLSv1_2
        session = None
        if is_served():
            break
    eventually(lambda: not is_served(), "it has expired")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_endless_handshake(serve: Serve, tmp_path: Path, authority: Authority, sent: bytes) -> None:
    """Closed when its time is over."""
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES)), header_timeout_s=0.1)
    with connect(server.port) as connection:
        connection.sendall(sent)
        assert until_closed(connection) == b""
    eventually(lambda: server.open_connections == 0, "its place is free")


def test_many_endless_handshakes(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Only so many are waited for; others are served meanwhile."""
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES)))
    with ExitStack() as stack:
        crowd = [stack.enter_context(connect(server.port)) for _ in range(300)]
        assert ask(server, trusting(authority, tmp_path)).status == 200
        assert server.open_connections <= 128
        assert until_closed(crowd[0]) == b""


def test_drain_ends_handshakes(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """They are not waited for."""
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES)))
    with connect(server.port) as connection:
        eventually(lambda: server.open_connections == 1, "it has been accepted")
        server.drain()
        assert server.wait_drained(PATIENCE_S)
        assert until_closed(connection) == b""


def test_plain_http(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Not answered; the server goes on."""
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES)))
    with connect(server.port) as connection:
        connection.sendall(GET)
        assert not until_closed(connection).startswith(b"HTTP")
    assert ask(server, trusting(authority, tmp_path)).status == 200


def test_memory_of_a_connection(serve: Serve, tmp_path: Path, authority: Authority) -> None:
    """Its buffer for what comes is small, as there may be thousands; bodies of any size arrive all the same."""
    server = serve(loaded(tmp_path, authority.issue(*LOCAL_NAMES)))
    with trusting(authority, tmp_path).wrap_socket(connect(server.port), server_hostname="localhost") as connection:
        body = bytes(range(256)) * 4096
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert read_answer(connection).status == 200
        (transport,) = (each.transport for each in server._connections.all())
        assert len(transport._ssl_protocol.get_buffer(-1)) == 32 * 1024  # type: ignore[union-attr]
