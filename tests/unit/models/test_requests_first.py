"""Pauses of loads, for the requests that are answered meanwhile."""

import pytest

from inferd.batching.idle_cores import IdleCores
from inferd.models.requests_first import RequestsFirst
from tests.fakes import FakeClock


class Server:
    """A server whose threads sleep at no cost, with one model."""

    def __init__(self):
        self.clock = FakeClock()
        self.cores = IdleCores()
        self.model = self.cores.register()
        self.requests_first = RequestsFirst(self.cores, self.clock, self.clock.advance)

    def pause(self):
        """Return how long a pause takes, in milliseconds."""
        before = self.clock()
        self.requests_first.pause()
        return round((self.clock() - before) * 1000, 3)


@pytest.fixture
def server():
    """A server that has answered nothing yet."""
    return Server()


def test_pauses_take_no_time_on_an_idle_server(server):
    """The models of a start are loaded at full speed."""
    assert [server.pause() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_loads_pause_while_batches_are_run(server):
    """Each time, and for a while after the last one."""
    server.model.begun += 1
    assert [server.pause() for _ in range(3)] == [4.0, 4.0, 4.0]
    server.clock.advance(2.0)
    assert server.pause() == 0.0


def test_loads_pause_again_when_requests_come_back(server):
    """A quiet time does not end it."""
    server.model.begun += 1
    server.pause()
    server.clock.advance(2.0)
    server.pause()
    server.model.begun += 1
    assert server.pause() == 4.0
