"""The poll loop: one thread that handles the core's events, callbacks of other threads, and timers.

The core reports everything as an event on one completion queue: a new call, a message, a sent response, the end of a
call. One round, `PollLoop.step`:

1. Wait for an event; take the other events that are ready (`rounds` says how many).
2. Handle them. Batches for the core (receive a message, send a response) are only deferred, by `defer_batch`.
3. Run the callbacks of `call_soon`.
4. Start the deferred batches. Alternating between Python and the core costs cache misses
   (docs/decisions/rpc-phases.md). Answers to one connection leave it together (`corks`).
5. If no event is ready, or for at most 1 ms under load, run the callbacks of `call_when_idle`. Batching uses them to
   see all requests that arrived together.
6. Run the timers that are due, and the callbacks of `call_at_end`.

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
from collections.abc import Callable, Iterable

from inferd.rpc import core
from inferd.rpc.corks import Corks
from inferd.rpc.rounds import DeferredBatch, DeferredBatches, Events
from inferd.rpc.timers import Callback, Timers
from inferd.rpc.turns import Turns

_log = logging.getLogger("inferd.rpc")

_FAILED = "a callback on the poll thread failed"
_MAX_BUSY_S = 0.001


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


class IdleCallbacks:
    """Callbacks for when no event is ready, or for the end of a round that HTTP shares; on the poll thread only."""

    def __init__(self, clock: Callable[[], float], turns: Turns) -> None:
        self._clock = clock
        self._turns = turns
        self.waiting: list[Callback] = []
        #: When they run at the latest.
        self.due_at = -math.inf

    def add(self, callback: Callback) -> None:
        """Run ``callback`` when no event is ready."""
        if not self.waiting:
            self.due_at = self._clock() + (0.0 if self._turns.are_shared else _MAX_BUSY_S)
        self.waiting.append(callback)

    def run(self) -> None:
        """Run those that are present now."""
        callbacks, self.waiting = self.waiting, []
        _run_each(callbacks)


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
        turns: Turns | None = None,
        clock: Callable[[], float] = time.monotonic,
        epoch_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        turns = turns or Turns(clock=clock)
        self._events = Events(queue, clock, sleep, turns)
        self._timers = Timers(clock, epoch_clock)
        self._wake_ups = WakeUps()
        self._batches = DeferredBatches(corks, turns)
        #: Starts a batch after the events that are ready have been handled; on the poll thread only. The list's own
        #: method, because each call defers three batches.
        self.defer_batch: Callable[[DeferredBatch], None] = self._batches.waiting.append
        self._soon: deque[Callback] = deque()
        self._may_sleep = True
        self._idle = IdleCallbacks(clock, turns)
        self._at_end: list[Callback] = []
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
        while self._is_over is None or self._events.held or not (self._is_over() and self._wake_ups.close()):
            self.step()
        self._events.end()

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """From now on, check ``is_over`` before each round."""
        self._is_over = is_over

    def step(self) -> None:
        """Run one round: wait for an event or a timer, and handle what is ready."""
        events = self._events
        self._may_sleep = True
        if self._soon or self._idle.waiting or events.held:
            self._may_sleep = False
        if self._may_sleep:
            event = events.wait(self._timers.poll_until_epoch_s)
        else:
            event = events.held.pop(0) if events.held else events.queue.poll(0.0)
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
        if self._idle.waiting and (is_idle or now >= self._idle.due_at):
            self._idle.run()
            self._batches.start()
        if now >= self._timers.next_at:
            self._run_timers()
        if self._at_end:
            self._run_at_end()
        if now >= events.read_all_at:
            events.read_all_next(now)
        if now < events.gather_until and not (self._soon or self._idle.waiting or events.held):
            events.wait_to_gather(now)

    def call_rejected(self, now: float) -> None:
        """Gather the following rounds, as a call was rejected at ``now``; on the poll thread only."""
        if self.may_gather:
            self._events.gather(now)

    @property
    def is_gathering(self) -> bool:
        """Whether rounds are gathered, as a call was rejected just now; on the poll thread only."""
        return self.now() < self._events.gather_until

    def note_late(self, now: float) -> None:
        """Take all events that are ready in the next round, as calls were left unread; on the poll thread only."""
        self._events.note_late(now)

    @property
    def late_at(self) -> float:
        """When calls were last left unread at the end of a round, as there were too many; any thread."""
        return self._events.late_at

    @property
    def in_poll_thread(self) -> bool:
        """True if the caller runs on the poll thread."""
        return threading.get_ident() == self.thread_id

    def call_at(self, when: float, callback: Callback) -> None:
        """Call ``callback`` once the monotonic clock has reached ``when``; never, if the loop ends before."""
        if self._timers.add(when, callback) and not self.in_poll_thread:
            self._wake_ups.post(_nothing)

    def _run_timers(self) -> None:
        _run_each(self._timers.take_due())
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
        """Call ``callback`` when no event is ready, or after about 1 ms; on the poll thread only.

        While calls of both protocols come, call it in this round.
        """
        self._idle.add(callback)

    def call_at_end(self, callback: Callback) -> None:
        """Call ``callback`` at the end of this round; on the poll thread only."""
        self._at_end.append(callback)

    def _run_at_end(self) -> None:
        callbacks, self._at_end = self._at_end, []
        _run_each(callbacks)

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


def _run_each(callbacks: Iterable[Callback]) -> None:
    for callback in callbacks:
        _run_guarded(callback)


def _run_guarded(callback: Callback) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001  the loop serves all calls and must go on
        _log.exception(_FAILED)
