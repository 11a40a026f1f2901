"""The hand-over between two threads, step by step in one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from inferd.http.hand_over import HandOver
from inferd.rpc.turns import Turns
from tests.unit.rpc.fakes import FakeUrgentThread


class FakePollLoop:
    """Runs callbacks when the test says."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.at_end: list[Callable[[], None]] = []
        self.in_poll_thread = True

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_at_end(self, callback: Callable[[], None]) -> None:
        self.at_end.append(callback)

    def run(self) -> None:
        soon, self.soon = self.soon, []
        for callback in soon:
            callback()
        at_end, self.at_end = self.at_end, []
        for callback in at_end:
            callback()


class Waiter:
    def __init__(self, log: list[str], name: str) -> None:
        self._log = log
        self._name = name

    def wake(self) -> None:
        self._log.append(self._name)


def in_loop(test: Callable[[FakePollLoop, list[str], HandOver], Any], *, with_rpc: bool = False) -> None:
    """Run ``test`` on an asyncio loop; the log has what is refused, too, and when the http thread gives way."""

    async def run() -> None:
        loop, log = FakePollLoop(), list[str]()
        turns = Turns(FakeUrgentThread(log), clock=lambda: 1.0)
        if with_rpc:
            turns.poll_thread.used()
        await test(loop, log, HandOver(loop, turns, lambda: log.append("refused")))  # type: ignore[arg-type]

    asyncio.run(run())


def test_one_round_goes_over_in_one_step() -> None:
    """In order; one that fails does not hold the others up."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        hand_over.submit(lambda: log.append("a"))
        hand_over.submit(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
        hand_over.submit(lambda: log.append("b"))
        assert loop.soon == []
        await asyncio.sleep(0)
        assert len(loop.soon) == 1
        loop.run()
        assert log == ["a", "b"]

    in_loop(run)


def test_bounds_work_of_one_round() -> None:
    """The rest is done in the next ones."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        for _ in range(100):
            hand_over.submit(lambda: log.append("x"))
        await asyncio.sleep(0)
        loop.run()
        assert len(log) == 64
        loop.run()
        assert len(log) == 100
        assert loop.soon == []

    in_loop(run)


def test_late_work_goes_with_the_next() -> None:
    """Before it, as it came first."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        hand_over.submit(lambda: log.append("first"))
        await asyncio.sleep(0)
        hand_over.submit_late(lambda: log.append("late"))
        await asyncio.sleep(0)
        assert len(loop.soon) == 1
        hand_over.submit(lambda: log.append("next"))
        await asyncio.sleep(0)
        loop.run()
        assert log == ["first", "late", "next"]

    in_loop(run)


def test_answers_of_a_round_come_together() -> None:
    """The http thread is woken once, at the end of the round."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        hand_over.submit(lambda: None)
        await asyncio.sleep(0)
        loop.run()
        hand_over.wake(Waiter(log, "a"))
        hand_over.wake(Waiter(log, "b"))
        assert len(loop.at_end) == 1
        loop.run()
        loop.in_poll_thread = False
        await asyncio.sleep(0)
        hand_over.wake(Waiter(log, "c"))
        assert log == ["a", "b"]
        await asyncio.sleep(0)
        assert log == ["a", "b", "c"]

    in_loop(run)


@pytest.mark.parametrize("with_rpc", [True, False])
def test_many_answers_are_written_in_turns_with_grpc(with_rpc: bool) -> None:
    """The http thread gives way after every eight, if calls over gRPC come too."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        hand_over.submit(lambda: None)
        await asyncio.sleep(0)
        loop.run()
        for _ in range(20):
            hand_over.wake(Waiter(log, "answer"))
        loop.run()
        await asyncio.sleep(0)
        turn = ["gave way"] if with_rpc else []
        assert log == ["answer"] * 8 + turn + ["answer"] * 8 + turn + ["answer"] * 4

    in_loop(run, with_rpc=with_rpc)


def test_closed_only_when_nothing_is_on_its_way() -> None:
    """What comes later is refused on the http thread."""

    async def run(loop: FakePollLoop, log: list[str], hand_over: HandOver) -> None:
        hand_over.submit(lambda: log.append("done"))
        await asyncio.sleep(0)
        assert not hand_over.close()
        loop.run()
        assert hand_over.close()
        hand_over.submit(lambda: log.append("never"))
        await asyncio.sleep(0)
        assert (loop.soon, log) == ([], ["done", "refused"])

    in_loop(run)
