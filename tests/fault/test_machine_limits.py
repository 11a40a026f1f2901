"""A server on a machine with fewer resources than its settings need."""

import socket
import urllib.request
from contextlib import ExitStack

import pytest

from inferd import demo
from inferd.client import Client
from tests.patience import PATIENCE_S
from tests.server import ServerProcess


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE_S)


@pytest.fixture
def small():
    server = ServerProcess(demo.repository(), prefix=("prlimit", "--nofile=256:256"))
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()


def test_few_descriptors(small: ServerProcess) -> None:
    """The limit is lowered and logged; a flood of connections affects neither probes nor clients."""
    small.wait_ready()
    assert "lowered server.connections.max_open from 4096 to " in small.text
    assert "may open 256 files" in small.text
    client = Client(small.grpc)
    with client, ExitStack() as crowd:
        assert [model.name for model in client.models()] == ["digits"]
        for _ in range(300):
            crowd.enter_context(_connect(small.grpc))
        for _ in range(100):
            crowd.enter_context(_connect(small.http))
        with urllib.request.urlopen(f"http://{small.http}/readyz", timeout=PATIENCE_S) as answer:
            assert answer.status == 200
        assert [model.name for model in client.models()] == ["digits"]
    assert small.stop() == 0
    assert "Too many open files" not in small.text
