"""Servers that are stopped after each test, without leaked calls or threads."""

import threading

import pytest

from tests.integration.rpc.support import Running
from tests.patience import PATIENCE_S


@pytest.fixture
def serve():
    """Create servers; after the test none has live calls or threads."""
    running = []

    def make(handlers=None, **settings):
        server = Running(handlers, **settings)
        running.append(server)
        return server.start()

    yield make
    for server in running:
        server.close()
        assert server.server.live_calls == 0
    left = [thread for thread in threading.enumerate() if thread.name.startswith("inferd-rpc")]
    for thread in left:
        thread.join(PATIENCE_S)
    assert not [thread.name for thread in left if thread.is_alive()]


@pytest.fixture
def running(serve):
    """One server with the usual handlers."""
    return serve()
