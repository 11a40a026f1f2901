"""A stopping replica behind a load balancer that sends it no new connections, as a Kubernetes Service does."""

import signal
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.load import connect
from tests.patience import eventually
from tests.replicas.traffic import traffic
from tests.server import ServerProcess, serving


class Relay(socketserver.ThreadingTCPServer):
    """Forwards connections to ``target``, as it is when they are opened."""

    def __init__(self, target: ServerProcess) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.target = target
        #: Targets of the open connections.
        self.targets: list[ServerProcess] = []


class _Connection(socketserver.BaseRequestHandler):
    server: Relay

    def handle(self) -> None:
        target = self.server.target
        host, _, port = target.grpc.rpartition(":")
        with socket.create_connection((host, int(port))) as onward:
            self.server.targets.append(target)
            back = threading.Thread(target=_pass_on, args=(onward, self.request))
            back.start()
            _pass_on(self.request, onward)
            back.join()
            self.server.targets.remove(target)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def _relaying(target: ServerProcess) -> Iterator[Relay]:
    with Relay(target) as relay:
        thread = threading.Thread(target=relay.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield relay
        finally:
            relay.shutdown()
            thread.join()


@pytest.fixture
def replicas() -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two whose maximum connection age is much shorter than their drain delay."""
    settings = ("--set", "server.connections.max_age_s=0.2", "--set", "server.drain_delay_s=600")
    with serving(*settings) as one, serving(*settings) as other:
        yield one, other


def test_connections_move_before_stop(replicas) -> None:
    """Connections end by age and are reopened to the other replica: no call fails."""
    stopping, other = replicas
    with _relaying(stopping) as relay:
        host, port = relay.server_address
        with connect(f"{host}:{port}") as channel, traffic(channel) as calls:
            eventually(lambda: calls.answered > 100, "calls are answered")
            relay.target = other
            stopping.process.send_signal(signal.SIGTERM)
            stopping.wait_event("draining")
            eventually(lambda: stopping not in relay.targets, "nobody calls the one that stops")
            # Already ended.
            assert stopping.stop() == 128 + signal.SIGTERM
            answered = calls.answered
            eventually(lambda: calls.answered > answered, "calls are answered by the other one")
    assert calls.failed == []
