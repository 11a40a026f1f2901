"""The metrics port over real sockets, with misbehaving clients."""

import gzip
import http.client
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from inferd.http.server import BindError, HttpServer
from inferd.observability.monitoring import Health, monitoring_server
from tests.patience import PATIENCE_S

Serve = Callable[..., HttpServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports, and stop them."""
    servers: list[HttpServer] = []

    def _serve(registry: CollectorRegistry | None = None, **options: object) -> HttpServer:
        defaults = {"host": "127.0.0.1", "port": 0, "readiness": lambda: Health(ok=True), "timeout_s": 30.0}
        server = monitoring_server(registry=registry or CollectorRegistry(), **{**defaults, **options})
        server.start()
        servers.append(server)
        return server

    yield _serve
    for server in servers:
        server.stop()


def request(server: HttpServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)


def raw(server: HttpServer, data: bytes) -> bytes:
    """Send bytes, and return all that the server sends until it closes the connection."""
    with connect(server) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def closed(connection: socket.socket) -> bool:
    """Wait for the end of the connection; return whether it was closed without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("answer", "of all", registry=registry).set(42)
    return registry


def test_metrics_in_prometheus_format(serve: Serve, registry: CollectorRegistry) -> None:
    """The default format."""
    status, headers, body = request(serve(registry), "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    (family,) = text_string_to_metric_families(body.decode())
    assert family.samples[0].value == 42


def test_metrics_in_openmetrics_format(serve: Serve, registry: CollectorRegistry) -> None:
    """The format that Prometheus requests."""
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    _, headers, body = request(serve(registry), "/metrics", Accept=accept)
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    (family,) = parse_openmetrics(body.decode())
    assert family.samples[0].value == 42


def test_compresses_metrics_on_request(serve: Serve, registry: CollectorRegistry) -> None:
    """With gzip; other clients get plain text."""
    server = serve(registry)
    _, plain, text = request(server, "/metrics")
    _, headers, body = request(server, "/metrics", **{"Accept-Encoding": "gzip"})
    assert (headers["content-encoding"], headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(headers["content-length"]) == len(body)
    assert gzip.decompress(body) == text
    assert "content-encoding" not in plain
    assert plain["vary"] == "Accept-Encoding"


def test_invalid_accept_header_gets_default_format(serve: Serve, registry: CollectorRegistry) -> None:
    """It is no error."""
    status, headers, _ = request(serve(registry), "/metrics", Accept="application/openmetrics-text;version=abc")
    assert (status, headers["content-type"].split(";")[0]) == (200, "text/plain")


def test_readiness(serve: Serve) -> None:
    """Evaluated for each request; the reason is one short line, with details on request."""
    health = Health(ok=False, reason="1 of 2 models is loading", details=("digits/1: ready", "mini/1: loading"))
    server = serve(readiness=lambda: health)
    assert request(server, "/readyz")[::2] == (503, b"1 of 2 models is loading\n")
    assert request(server, "/readyz?verbose")[2] == b"1 of 2 models is loading\ndigits/1: ready\nmini/1: loading\n"
    health = Health(ok=True)
    assert request(server, "/readyz")[::2] == (200, b"ok\n")


def test_liveness(serve: Serve) -> None:
    """By default a server that answers is alive; the application may decide otherwise."""
    assert request(serve(readiness=lambda: Health(ok=False)), "/livez")[::2] == (200, b"ok\n")
    stuck = serve(liveness=lambda: Health(ok=False, reason="stuck"))
    assert request(stuck, "/livez")[::2] == (503, b"stuck\n")


def test_head(serve: Serve, registry: CollectorRegistry) -> None:
    """The headers of GET."""
    server = serve(registry)
    status, headers, body = request(server, "/metrics", "HEAD")
    assert (status, body) == (200, b"")
    assert headers["content-length"] == str(len(request(server, "/metrics")[2]))


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/metrics/", 404), ("//livez", 404), ("/readyz?x=1", 200)])
def test_paths(serve: Serve, path: str, status: int) -> None:
    """Exactly three paths, whatever the query."""
    assert request(serve(), path)[0] == status


def test_other_methods(serve: Serve) -> None:
    """Rejected with the allowed ones, also with a large body."""
    server = serve()
    assert request(server, "/livez", "DELETE")[0] == 405
    answer = raw(server, b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + b"x" * 500_000)
    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


def test_invalid_http(serve: Serve) -> None:
    """An error response, and the server continues."""
    server = serve()
    assert raw(server, b"\x16\x03\x01\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")
    assert request(server, "/livez")[0] == 200


def test_failing_scrape_is_logged_and_answered(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """An error in a collector is not exposed, and does not stop the server."""
    registry = CollectorRegistry()

    class Broken:
        def collect(self) -> None:
            raise RuntimeError("internals")

    registry.register(Broken())
    server = serve(registry)
    with caplog.at_level(logging.ERROR):
        status, _, body = request(server, "/metrics")
    assert (status, body) == (500, b"failed, see the log\n")
    assert "internals" in caplog.text
    assert request(server, "/livez")[0] == 200


def test_concurrent_clients(serve: Serve, registry: CollectorRegistry) -> None:
    """Every client gets its whole answer."""
    server = serve(registry)
    statuses: list[int] = []

    def client() -> None:
        statuses.extend(request(server, path)[0] for path in ("/metrics", "/livez", "/readyz", "/none"))

    threads = [threading.Thread(target=client) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (statuses.count(200), statuses.count(404)) == (72, 24)


def ask_again_and_again(path: str) -> Callable[[HttpServer], None]:
    def client(server: HttpServer) -> None:
        for _ in range(300):
            assert request(server, path)[0] == 200

    return client


def send_a_body_without_end(server: HttpServer) -> None:
    with connect(server) as connection, suppress(ConnectionError):
        connection.sendall(b"POST /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        while True:
            connection.sendall(bytes(65536))


FLOODS = {
    "scrapes": (ask_again_and_again("/metrics"), PATIENCE_S),
    "probes": (ask_again_and_again("/livez"), PATIENCE_S),
    "bodies": (send_a_body_without_end, 0.5),
}


@pytest.mark.parametrize(("flood", "timeout_s"), FLOODS.values(), ids=FLOODS)
def test_flood_stays_within_cpu_budget(
    serve: Serve, registry: CollectorRegistry, flood: Callable[[HttpServer], None], timeout_s: float
) -> None:
    """A fifth of a core, so that calls are served meanwhile."""
    server = serve(registry, timeout_s=timeout_s)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "monitoring")
    assert thread.ident is not None
    cpu_clock = time.pthread_getcpuclockid(thread.ident)
    began_at, used_s = time.monotonic(), time.clock_gettime(cpu_clock)
    clients = [threading.Thread(target=flood, args=(server,)) for _ in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    used_s = time.clock_gettime(cpu_clock) - used_s
    # The burst, a fifth of the time, and the work in progress when the limit takes effect.
    assert used_s < 0.1 + 0.2 * (time.monotonic() - began_at) + 0.05


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: a\r\nX-a: b\r\n"])
def test_incomplete_request_times_out(serve: Serve, sent: bytes) -> None:
    """The timeout is for the whole request, so sending a byte now and then does not help."""
    server = serve(timeout_s=0.05)
    with connect(server) as slow:
        slow.sendall(sent)
        assert closed(slow)


def test_slowly_sent_request_times_out(serve: Serve) -> None:
    """A client that keeps sending is disconnected as well."""
    server = serve(timeout_s=0.05)
    with connect(server) as slow, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in iter(lambda: slow.send(b"x"), 0):
            pass


def test_slow_clients_do_not_block_probes(serve: Serve) -> None:
    """At the limit of connections, the oldest is closed, well before its timeout."""
    server = serve(max_connections=2)
    with connect(server) as first, connect(server) as second:
        second.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n")
        assert request(server, "/livez")[0] == 200
        assert closed(first)
        second.sendall(b"\r\n")
        assert second.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_client_that_disconnects(serve: Serve) -> None:
    """During a request or before its answer."""
    server = serve()
    for sent in (b"GET /liv", b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"):
        connect(server).close()
        with connect(server) as connection:
            connection.sendall(sent)
    assert request(server, "/livez")[0] == 200


def test_stop_closes_connections_and_ends_thread(serve: Serve) -> None:
    """An idle client does not delay the stop; the port is free again."""
    server = serve()
    port = server.port
    with connect(server) as idle:
        assert request(server, "/livez")[0] == 200
        server.stop()
        assert closed(idle)
    assert not any(thread.name == "monitoring" for thread in threading.enumerate())
    again = serve(port=port)
    assert request(again, "/livez")[0] == 200


def test_stop_without_start() -> None:
    """An application that fails early stops its components."""
    server = monitoring_server(
        host="127.0.0.1", port=0, registry=CollectorRegistry(), readiness=lambda: Health(ok=True)
    )
    server.stop()
    server.stop()


def test_port_in_use(serve: Serve) -> None:
    """The error names the address and the reason."""
    taken = serve()
    with pytest.raises(
        BindError, match=rf"^cannot listen on 127\.0\.0\.1:{taken.port} for HTTP: Address already in use"
    ):
        serve(port=taken.port)


def test_address_of_another_machine(serve: Serve) -> None:
    """An IPv6 host is shown as in a URL."""
    with pytest.raises(BindError, match=r"^cannot listen on \[2001:db8::1\]:1 for HTTP: "):
        serve(host="[2001:db8::1]", port=1)
    with pytest.raises(BindError, match=r"^cannot listen on no\.such\.invalid:1 for HTTP: "):
        serve(host="no.such.invalid", port=1)
