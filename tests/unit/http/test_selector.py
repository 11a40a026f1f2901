"""The selector of the http thread, with real sockets."""

import selectors
import socket
from collections.abc import Iterator
from itertools import chain

import pytest

from inferd.http.selector import TurnTakingSelector
from inferd.rpc.turns import Turns
from tests.unit.rpc.fakes import FakeUrgentThread


class Bench:
    """A selector with sockets that can be read; the log has each time that the thread gives way."""

    def __init__(self) -> None:
        self.log: list[str] = []
        thread = FakeUrgentThread(self.log)
        self.turns = Turns(thread, clock=lambda: 1.0)
        self.selector = TurnTakingSelector(self.turns)
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def add(self, count: int) -> list[int]:
        """Register sockets with a byte each; return their descriptors."""
        added = [socket.socketpair() for _ in range(count)]
        for ours, theirs in added:
            theirs.send(b"x")
            self.selector.register(ours.fileno(), selectors.EVENT_READ)
        self.pairs += added
        return [ours.fileno() for ours, _ in added]

    def share(self) -> None:
        """Have calls of both protocols come."""
        self.turns.poll_thread.used()
        self.turns.http_used()

    def select(self) -> list[int]:
        """Return the descriptors of one call."""
        return [key.fd for key, _ in self.selector.select(0)]

    def close(self) -> None:
        self.selector.close()
        for pair in self.pairs:
            for one in pair:
                one.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def test_returns_all_ready_sockets_without_calls_over_grpc(bench: Bench) -> None:
    """Nothing is held back, and the thread does not give way."""
    added = bench.add(20)
    assert sorted(bench.select()) == sorted(added)
    assert bench.log == []


def test_returns_few_at_a_time_with_calls_over_grpc(bench: Bench) -> None:
    """Each once, until all have been returned."""
    added = bench.add(20)
    bench.share()
    rounds = [bench.select() for _ in range(3)]
    assert [len(each) for each in rounds] == [8, 8, 4]
    assert sorted(chain.from_iterable(rounds)) == sorted(added)
    assert bench.log == ["gave way", "gave way"]


def test_drops_what_has_changed_meanwhile(bench: Bench) -> None:
    """A held socket that was unregistered is not returned; one that was changed as it is then."""
    bench.add(20)
    bench.share()
    returned = set(bench.select())
    gone, changed, *_ = [ours.fileno() for ours, _ in bench.pairs if ours.fileno() not in returned]
    bench.selector.unregister(gone)
    bench.selector.modify(changed, selectors.EVENT_WRITE)
    seen: dict[int, int] = {}
    for _ in range(4):
        seen |= {key.fd: events for key, events in bench.selector.select(0)}
    assert gone not in seen
    assert seen[changed] == selectors.EVENT_WRITE


def test_has_work_while_busy_or_with_ready_sockets(bench: Bench) -> None:
    """Between two calls the thread is busy; within one it has work if a socket is ready."""
    assert bench.selector.has_work()
    bench.selector._is_selecting = True
    assert not bench.selector.has_work()
    bench.add(1)
    assert bench.selector.has_work()
