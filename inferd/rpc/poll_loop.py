"""The poll loop: one thread that handles the core's events, callbacks of other threads, and timers.

The core reports everything as an event on one completion queue: a new call, a message, a sent response, the end of a
call. One round, `PollLoop.step`:

1. Wait for an event; take the other events that are ready, up to 64 (see *gathering*).
2. Handle them. Batches for the core (receive a message, send a response) are only deferred, by `defer_batch`.
3. Run the callbacks of `call_soon`.
4. Start the deferred batches. Alternating between Python and the core costs cache misses
   (docs/decisions/rpc-phases.md). Answers to one connection leave it together (`corks`).
5. If no event is ready, or for at most 1 ms under load, run the callbacks of `call_when_idle`. Batching uses them to
   see all requests that arrived together.
6. Run the timers that are due.

Reading: the polling thread also reads the sockets (docs/decisions/rpc-one-thread-reads.md). A poll that finds no event
reads one socket, a poll that sleeps reads all. So under load, one round every 2 ms ends only after 16 polls without an
event: with one socket a round, a rarely read connection waited for 0.6 s beside four busy streams, instead of 13 ms.

Gathering: for 0.1 s after a call was rejected, rounds begin at least 3 ms apart, take up to 512 events, and read all
sockets, unless callbacks wait, which may be runs of a model. Full rounds of 64 events follow at once, with a large one
after every eight. So the thread interrupts runs less often, and no connection waits until all that others have sent is
handled (docs/decisions/rpc-gathering.md).

Waking: only an event wakes a poll that sleeps in the core. An empty batch on any call, even one that has ended, makes
one, so the loop keeps the latest call for that. Until the first call the loop sleeps at most 50 ms at a time. No
wake-up is lost: the loop sets ``_may_sleep`` before it checks ``_soon``; other threads append to ``_soon`` before they
read ``_may_sleep``, and add a timer before they wake the loop.

Ending: a batch on a queue that was shut down aborts the process. So the loop ends only when no wake-up is pending, and
starts none after that.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from inferd.rpc import core
from inferd.rpc.corks import Corks
from inferd.rpc.timers import Callback, Timers

_log = logging.getLogger("inferd.rpc")

_FAILED = "a callback on the poll thread failed"
_MAX_EVENTS = 64
_MAX_BUSY_S = 0.001
_READ_ALL_INTERVAL_S = 0.002
_READ_ALL_POLLS = 16
#: A poll that took this long has slept.
_SLEPT_S = 0.0005

#: Seconds for which rounds are gathered after a rejection, between two of them, and events of one at most.
_GATHERED_S = 0.1
_GATHER_INTERVAL_S = 0.003
_GATHERED_EVENTS = 512
#: Full rounds are not gathered, but after this many of them all sockets are read.
_MAX_FULL_ROUNDS = 8


class BatchOwner(Protocol):
    """A call that starts batches."""

    @property
    def core_call(self) -> core.Call:
        """The core's call."""
        ...

    @property
    def raw_peer(self) -> bytes:
        """The caller's address as the core writes it."""
        ...

    def batch_refused(self, batch: core.Batch, tag: Callable[[Any], None], error: int) -> None:
        """Handle a batch that the core did not start, so that its event will not come."""
        ...


DeferredBatch = tuple[BatchOwner, core.Batch, Callable[[Any], None]]


class DeferredBatches:
    """Holds batches until the events that are ready have been handled; on the poll thread only."""

    def __init__(self, corks: Corks | None) -> None:
        self._corks = corks
        self.waiting: list[DeferredBatch] = []

    def start(self) -> None:
        """Start all of them."""
        deferred = self.waiting.copy()
        self.waiting.clear()
        corked = self._cork(deferred) if len(deferred) > 1 else ()
        for call, batch, tag in deferred:
            try:
                error = call.core_call.start_server_batch(batch, tag)
                if error:
                    call.batch_refused(batch, tag, error)
            except BaseException:  # noqa: BLE001  as in `_run_guarded`
                _log.exception(_FAILED)
        if corked and self._corks is not None:
            self._corks.remove(corked)

    def _cork(self, deferred: list[DeferredBatch]) -> Sequence[int]:
        """Cork the connections of several answers."""
        if self._corks is None:
            return ()
        try:
            # Batches that receive have one operation, those that answer have more.
            return self._corks.put([call.raw_peer for call, batch, _ in deferred if len(batch) > 1])
        except Exception:  # noqa: BLE001  the batches must be started
            _log.exception(_FAILED)
            return ()


class Events:
    """Polls the core's queue, which also reads the sockets, and handles the events; on the poll thread only."""

    def __init__(self, queue: core.Queue, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self.queue = queue
        self._clock = clock
        self._sleep = sleep
        #: The next round ends after this many polls without an event, or this many events.
        self._empty_polls = 1
        self._most_events = _MAX_EVENTS
        self._full_rounds = 0
        #: Time at which a round is to read all sockets.
        self.read_all_at = -math.inf
        #: Time until which rounds are gathered, and at which the next one may begin.
        self.gather_until = -math.inf
        self._next_round_at = -math.inf

    def wait(self, until_epoch_s: float | None) -> core.Event:
        """Sleep until an event comes, at most until ``until_epoch_s``."""
        since = self._clock()
        event = self.queue.poll(until_epoch_s)
        now = self._clock()
        if now - since > _SLEPT_S:
            self.read_all_at = now + _READ_ALL_INTERVAL_S
        return event

    def read_all_next(self, now: float) -> None:
        """Read all sockets in the next round."""
        self._empty_polls = _READ_ALL_POLLS
        self.read_all_at = now + _READ_ALL_INTERVAL_S

    def wait_to_gather(self, now: float) -> None:
        """Sleep until the next round may begin; it reads all sockets and takes all events that have come."""
        if 0 < self._full_rounds < _MAX_FULL_ROUNDS:
            return
        if self._full_rounds == 0 and now < self._next_round_at:
            self._sleep(self._next_round_at - now)
            now = self._clock()
        self._next_round_at = now + _GATHER_INTERVAL_S
        self._full_rounds = 0
        self.read_all_next(now)
        self._most_events = _GATHERED_EVENTS

    def handle_ready(self, event: core.Event) -> bool:
        """Take the events that are ready after ``event``, handle all; return whether no further one was ready."""
        poll = self.queue.poll
        events = [event]
        is_idle = False
        empty_polls, self._empty_polls = self._empty_polls, 1
        most_events, self._most_events = self._most_events, _MAX_EVENTS
        while len(events) < most_events:
            event = poll(0.0)
            if event.tag is not None:
                events.append(event)
                continue
            empty_polls -= 1
            if empty_polls == 0:
                is_idle = True
                break
        self._full_rounds = self._full_rounds + 1 if len(events) >= _MAX_EVENTS else 0
        for event in events:
            tag = event.tag
            assert tag is not None
            try:
                tag(event)
            except BaseException:  # noqa: BLE001  as in `_run_guarded`, inlined for the number of events
                _log.exception(_FAILED)
        return is_idle


class WakeUps:
    """Wakes the poll thread by events: empty batches on ``call``, the latest one. Any thread.

    Invariant: `close` succeeds only when none is pending, and none is posted after it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._posted = 0
        self._closed = False
        self.call: core.Call | None = None

    def post(self, callback: Callback) -> bool:
        """Call ``callback`` on the poll thread by an event; returns False if no call can carry it."""
        with self._lock:
            if self.call is None or self._closed:
                return False

            def arrived(_event: core.BatchEvent) -> None:
                with self._lock:
                    self._posted -= 1
                callback()

            posted = self.call.start_server_batch((), arrived) == 0
            self._posted += posted
            return posted

    def close(self) -> bool:
        """Post no more; returns False if one is still to arrive."""
        with self._lock:
            self._closed = self._posted == 0
            if self._closed:
                self.call = None
            return self._closed


class PollLoop:
    """Runs event handlers, callbacks and timers one after another in one thread; none of them may block.

    Invariants: no exception of a handler leaves the loop. A loop that sleeps holds no event and no deferred batch.

    Threads: ``call_at`` and ``call_soon`` any; ``run`` is the poll thread; the rest on the poll thread only.
    """

    def __init__(
        self,
        queue: core.Queue,
        *,
        corks: Corks | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._events = Events(queue, clock, sleep)
        self._timers = Timers(clock, epoch_clock)
        self._wake_ups = WakeUps()
        self._batches = DeferredBatches(corks)
        #: Starts a batch after the events that are ready have been handled; on the poll thread only. The list's own
        #: method, because each call defers three batches.
        self.defer_batch: Callable[[DeferredBatch], None] = self._batches.waiting.append
        self._soon: deque[Callback] = deque()
        self._may_sleep = True
        self._idle_callbacks: list[Callback] = []
        self._idle_by = -math.inf
        self._is_over: Callable[[], bool] | None = None
        #: The identifier of the poll thread, to compare without a call of `in_poll_thread`.
        self.thread_id: int | None = None
        #: The monotonic time in seconds.
        self.now = clock
        #: Whether rejections gather rounds.
        self.may_gather = True

    def run(self) -> None:
        """Loop until the condition of `run_until` holds; afterwards nothing of this loop is pending on the queue."""
        self.thread_id = threading.get_ident()
        while self._is_over is None or not (self._is_over() and self._wake_ups.close()):
            self.step()

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """From now on, check ``is_over`` before each round."""
        self._is_over = is_over

    def step(self) -> None:
        """Run one round: wait for an event or a timer, and handle what is ready."""
        events = self._events
        self._may_sleep = True
        if self._soon or self._idle_callbacks:
            self._may_sleep = False
        event = events.wait(self._timers.poll_until_epoch_s) if self._may_sleep else events.queue.poll(0.0)
        self._may_sleep = False
        is_idle = event.tag is None or events.handle_ready(event)
        # An event refers to its call, which must not stay alive while the loop sleeps.
        del event
        if self._soon:
            self._run_soon()
        if self._batches.waiting:
            # A batch may complete at once, for example if the message was there already.
            is_idle = False
            self._batches.start()
        now = self.now()
        if self._idle_callbacks and (is_idle or now >= self._idle_by):
            self._run_idle()
        if now >= self._timers.next_at:
            self._run_timers()
        if now >= events.read_all_at:
            events.read_all_next(now)
        if now < events.gather_until and not (self._soon or self._idle_callbacks):
            events.wait_to_gather(now)

    def call_rejected(self, now: float) -> None:
        """Gather the following rounds, as a call was rejected at ``now``; on the poll thread only."""
        if self.may_gather:
            self._events.gather_until = now + _GATHERED_S

    @property
    def in_poll_thread(self) -> bool:
        """True if the caller runs on the poll thread."""
        return threading.get_ident() == self.thread_id

    def call_at(self, when: float, callback: Callback) -> None:
        """Call ``callback`` once the monotonic clock has reached ``when``; never, if the loop ends before."""
        if self._timers.add(when, callback) and not self.in_poll_thread:
            self._wake_ups.post(_nothing)

    def _run_timers(self) -> None:
        for callback in self._timers.take_due():
            _run_guarded(callback)
        self._batches.start()

    def call_soon(self, callback: Callback) -> None:
        """Call ``callback`` in this or the next round."""
        self._soon.append(callback)
        if self._may_sleep and not self.in_poll_thread:
            self._wake_ups.post(_nothing)

    def _run_soon(self) -> None:
        """Run the callbacks present now; those they add run in the next round."""
        for _ in range(len(self._soon)):
            _run_guarded(self._soon.popleft())

    def call_when_idle(self, callback: Callback) -> None:
        """Call ``callback`` when no event is ready, or after about 1 ms; on the poll thread only."""
        if not self._idle_callbacks:
            self._idle_by = self.now() + _MAX_BUSY_S
        self._idle_callbacks.append(callback)

    def _run_idle(self) -> None:
        callbacks, self._idle_callbacks = self._idle_callbacks, []
        for callback in callbacks:
            _run_guarded(callback)
        self._batches.start()

    def call_after_queued(self, callback: Callback) -> None:
        """Call ``callback`` after the events that are in the queue by now; on the poll thread only."""
        if not self._wake_ups.post(callback):
            self.call_soon(callback)

    def wake_by(self, call: core.Call) -> None:
        """Use ``call`` to wake the loop from now on."""
        wake_ups = self._wake_ups
        if wake_ups.call is None:
            self._timers.let_sleep()
        wake_ups.call = call


def _nothing() -> None:
    pass


def _run_guarded(callback: Callback) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001  the loop serves all calls and must go on
        _log.exception(_FAILED)
