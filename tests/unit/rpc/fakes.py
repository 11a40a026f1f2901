"""Fakes of the core: batches are recorded, and their events come when the test says."""

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inferd.interpreter_lock import UrgentThread
from inferd.rpc.call import CoreUnaryCall
from inferd.rpc.live_calls import LiveCalls
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.stream_call import CoreStreamCall
from inferd.rpc.turns import Turns

#: How far the wall clock of a `LoopBench` is ahead of its monotonic clock.
EPOCH_AHEAD_S = 1_700_000_000.0


class FakeClock:
    """A clock that advances only on request."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass(eq=False)
class FakeEvent:
    """An event with any tag."""

    tag: Callable[[Any], None] | None = None
    success: bool = True
    completion_type: int = 0
    batch_operations: tuple[Any, ...] = ()


class FakeQueue:
    """Returns the queued events; a poll without any advances the clock to its deadline."""

    def __init__(self, epoch_clock: FakeClock, clocks: tuple[FakeClock, ...] = ()) -> None:
        self.events: deque[FakeEvent] = deque()
        self.deadlines: list[float | None] = []
        self._clocks = (epoch_clock, *clocks)

    def poll(self, deadline: float | None) -> FakeEvent:
        self.deadlines.append(deadline)
        if self.events:
            return self.events.popleft()
        assert deadline is not None, "the loop would sleep forever"
        wait_s = max(deadline - self._clocks[0].now, 0.0)
        for clock in self._clocks:
            clock.advance(wait_s)
        return FakeEvent()

    def shutdown(self) -> None:
        raise AssertionError("not for this test")


class FakeLoop:
    """A fake of `PollLoop` that runs callbacks when the test says."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.soon: deque[Callable[[], None]] = deque()
        self.after_queued: deque[Callable[[], None]] = deque()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.rejected_at: list[float] = []
        self.thread_id = threading.get_ident()
        self.may_gather = True

    @property
    def in_poll_thread(self) -> bool:
        return threading.get_ident() == self.thread_id

    def now(self) -> float:
        return self.clock.now

    def defer_batch(self, deferred: tuple[Any, tuple[Any, ...], Callable[[Any], None]]) -> None:
        """Start it at once: the test decides when its event arrives."""
        call, batch, tag = deferred
        error = call.core_call.start_server_batch(batch, tag)
        if error:
            call.batch_refused(batch, tag, error)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_rejected(self, now: float) -> None:
        self.rejected_at.append(now)

    def call_after_queued(self, callback: Callable[[], None]) -> None:
        self.after_queued.append(callback)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.timers.append((when, callback))

    def run_soon(self) -> None:
        while self.soon:
            self.soon.popleft()()

    def run_timers(self) -> None:
        """Advance the clock through all timers."""
        while self.timers:
            when, callback = self.timers.pop(0)
            self.clock.now = max(self.clock.now, when)
            callback()
        self.run_after_queued()

    def run_after_queued(self) -> None:
        while self.after_queued:
            self.after_queued.popleft()()


@dataclass(eq=False)
class Started:
    """A batch in flight."""

    operations: tuple[Any, ...]
    tag: Callable[[Any], None]

    @property
    def kinds(self) -> list[str]:
        return [type(operation).__name__.removesuffix("Operation") for operation in self.operations]


@dataclass(eq=False)
class FakeCoreCall:
    """Records batches. ``refuse`` makes the next ones fail to start."""

    in_flight: list[Started] = field(default_factory=list)
    started: list[Started] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    refuse: int = 0
    cancels: int = 0

    def start_server_batch(self, operations: tuple[Any, ...], tag: Callable[[Any], None]) -> int:
        for operation in operations:
            assert not any(operation is other for other in self.seen), "an operation object was used twice"
            self.seen.append(operation)
        batch = Started(operations, tag)
        for other in self.in_flight:
            assert not set(other.kinds) & set(batch.kinds), f"{batch.kinds} while {other.kinds} is in flight"
        if self.refuse:
            self.refuse -= 1
            return 8
        self.in_flight.append(batch)
        self.started.append(batch)
        return 0

    def cancel(self) -> int:
        self.cancels += 1
        return 0

    def peer(self) -> bytes:
        return b"ipv6:%5B::1%5D:1234"

    def find(self, kind: str) -> Started | None:
        return next((batch for batch in self.in_flight if kind in batch.kinds), None)

    def complete(self, kind: str, *, success: bool = True, message: bytes | None = None) -> None:
        """Let the event of the batch with an operation of ``kind`` arrive."""
        batch = self.find(kind)
        assert batch is not None, f"no {kind} is in flight"
        self.in_flight.remove(batch)
        operations: tuple[Any, ...] = batch.operations
        if kind == "ReceiveMessage":
            operations = (FakeReceived(message),)
        batch.tag(FakeEvent(success=success, batch_operations=operations))

    def complete_all(self) -> None:
        """Let the events of all batches in flight arrive."""
        while self.in_flight:
            self.complete(self.in_flight[0].kinds[0])


class FakeReceived:
    def __init__(self, payload: bytes | None) -> None:
        self._payload = payload

    def message(self) -> bytes | None:
        return self._payload


class Recorder:
    """An interceptor that records the ends of calls."""

    def __init__(self) -> None:
        self.ends: list[tuple[Any, str]] = []

    def started(self, call: Any) -> None:
        pass

    def finished(self, call: Any, code: Any, details: str) -> None:
        self.ends.append((code, details))


class Bench:
    """One call on a fake core."""

    def __init__(
        self,
        kind: type[CoreUnaryCall] | type[CoreStreamCall],
        *,
        deadline: float = math.inf,
        on_live: Callable[[LiveCalls], None] = lambda live: None,
    ) -> None:
        self.loop = FakeLoop()
        self.recorder = Recorder()
        self.live = LiveCalls(self.loop, (self.recorder.finished,))  # type: ignore[arg-type]
        on_live(self.live)
        self.core = FakeCoreCall()
        self.call: Any = kind(
            self.core,
            self.live,
            method="/x.Y/Z",
            metadata=(("k", "v"),),
            deadline=deadline,
            started_at=self.loop.now(),
        )

    @property
    def codes(self) -> list[str]:
        return [code.name for code, _ in self.recorder.ends]


class FakeUrgentThread(UrgentThread):
    """Records in ``log`` that others gave way."""

    def __init__(self, log: list[str]) -> None:
        super().__init__(clock=lambda: 1.0)
        self._log = log

    def give_way(self, *, may_sleep: bool) -> None:
        """Return at once."""
        self._log.append("gave way")


class LoopBench:
    """A `PollLoop` on a fake queue and fake clocks."""

    def __init__(self, corks: Callable[[list[str]], Any] = lambda log: None) -> None:
        self.clock = FakeClock(1000.0)
        self.turns = Turns(UrgentThread(clock=self.clock), clock=self.clock, let_run=self.note("turn"))
        self.epoch = FakeClock(1000.0 + EPOCH_AHEAD_S)
        self.queue = FakeQueue(self.epoch, (self.clock,))
        self.log: list[str] = []
        self.sleeps: list[float] = []
        self.loop = PollLoop(
            self.queue,
            corks=corks(self.log),
            turns=self.turns,
            clock=self.clock,
            epoch_clock=self.epoch,
            sleep=self._sleep,
        )
        self.core_call = FakeCoreCall()

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        for clock in (self.clock, self.epoch):
            clock.advance(seconds)

    def note(self, text: str) -> Callable[..., None]:
        """Return a callback that records ``text``."""
        return lambda *_: self.log.append(text)


def receive_one(call: Any) -> None:
    """Serve ``call``, of either kind, with a handler of one request that does nothing."""
    if isinstance(call, CoreUnaryCall):
        call.serve(lambda call, message: None)
    else:
        call.receive_one(lambda message: None)


def sent_messages(call: FakeCoreCall) -> int:
    """The number of messages sent to the core."""
    return sum(kind == "SendMessage" for batch in call.started for kind in batch.kinds)
