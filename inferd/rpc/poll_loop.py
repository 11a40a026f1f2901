"""The poll thread's loop: events of the core, and timers."""

import heapq
import itertools
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from inferd.rpc import core

_log = logging.getLogger("inferd.rpc")

Callback = Callable[[], None]

_FAILED = "a callback on the poll thread failed"
#: Events that are taken before the first of them is handled.
_MOST_EVENTS = 64
#: Sleep at most this long while nothing could wake the loop: before the first call has come.
_UNWAKEABLE_SLEEP_S = 0.05
#: While events keep coming, what is to be done when idle is done after this long.
_LONGEST_BUSY_S = 0.001
#: A look at the core that finds no event reads from one socket. While events keep coming that is one socket for each
#: step, and callers whose connection is read rarely wait for seconds: 0.6 s beside four streams that send as fast as
#: they can, 13 ms with more looks every so often.
_LOOK_AROUND_EVERY_S = 0.002
_MOST_LOOKS = 16
_SLEPT_S = 0.0005


class Starter(Protocol):
    """A call that has batches to start."""

    def start_now(self, batch: core.Batch, tag: Callable[[Any], None], /) -> None:
        """Start ``batch``, and let ``tag`` have its event. Raises nothing."""
        ...


class PollLoop:
    """Runs the tags of events, and timers, one after the other in one thread; each must be short and not wait.

    Invariants: nothing raised by a tag or a timer leaves the loop. While ``_may_sleep`` is unset, the loop looks at
    ``_soon`` before it sleeps. ``_next_at`` is when the loop wakes at the latest, and is never later than the earliest
    timer. While the loop sleeps, it holds no event and ``_starts`` is empty. Once ``_closed`` is set the loop starts no
    batch, as one on a queue that was shut down would abort the process.

    Threads: ``call_at`` and ``call_soon`` any, ``run`` is the poll thread, and the rest is for the poll thread only.
    Poll sleeps inside the core and can only be woken by an event, for which an empty batch on any call will do, even
    one that has ended: the latest call is kept for that.
    """

    def __init__(
        self,
        queue: core.Queue,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoch_clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._epoch_clock = epoch_clock
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._next_at = -math.inf
        self._poll_until_epoch_s: float | None = 0.0
        self._waker: core.Call | None = None
        self._posted = 0
        self._closed = False
        self._is_over: Callable[[], bool] | None = None
        self._thread_id: int | None = None
        self._idle_callbacks: list[Callback] = []
        self._idle_by = -math.inf
        self._soon: deque[Callback] = deque()
        self._may_sleep = True
        #: How many looks that find nothing end the next step, and when there are to be more of them.
        self._looks = 1
        self._look_around_at = -math.inf
        self._starts: list[tuple[Starter, core.Batch, Callable[[Any], None]]] = []

    def run(self) -> None:
        """Loop until what `run_until` was given says that it is over; then nothing of this loop is pending."""
        self._thread_id = threading.get_ident()
        while self._is_over is None or not (self._is_over() and self._close()):
            self.step()

    def run_until(self, is_over: Callable[[], bool]) -> None:
        """From now on, ask ``is_over`` before each step whether to end."""
        self._is_over = is_over

    def step(self) -> None:
        """Wait for an event or a timer; handle it, and the other events that are ready."""
        # First the mark, then the look: whoever adds something does it the other way round, and so one sees the other.
        self._may_sleep = True
        if self._soon or self._idle_callbacks:
            self._may_sleep = False
        event = self._wait() if self._may_sleep else self._queue.poll(0.0)
        self._may_sleep = False
        is_idle = event.tag is None or self._handle_ready(event)
        # An event holds its call, which must not live on while the loop sleeps.
        del event
        if self._soon:
            self._run_soon()
        if self._starts:
            # What was started may be done by now: a message that was there already, for one.
            is_idle = False
            self._start_due()
        now = self._clock()
        if self._idle_callbacks and (is_idle or now >= self._idle_by):
            self._run_idle()
        if now >= self._next_at:
            self._run_timers()
        if now >= self._look_around_at:
            self._looks = _MOST_LOOKS
            self._look_around_at = now + _LOOK_AROUND_EVERY_S

    def _wait(self) -> core.Event:
        since = self._clock()
        event = self._queue.poll(self._poll_until_epoch_s)
        now = self._clock()
        if now - since > _SLEPT_S:
            # While it waits, the core reads from all sockets.
            self._look_around_at = now + _LOOK_AROUND_EVERY_S
        return event

    def _handle_ready(self, event: core.Event) -> bool:
        """Take what is ready besides ``event``, handle it all, and return whether that was everything."""
        poll = self._queue.poll
        events = [event]
        is_idle = False
        looks, self._looks = self._looks, 1
        while len(events) < _MOST_EVENTS:
            event = poll(0.0)
            if event.tag is not None:
                events.append(event)
                continue
            looks -= 1
            if looks == 0:
                is_idle = True
                break
        for event in events:
            tag = event.tag
            assert tag is not None
            try:
                tag(event)
            except BaseException:  # noqa: BLE001  as in `_run_guarded`, not called because there are so many events
                _log.exception(_FAILED)
        return is_idle

    def start_later(self, call: Starter, batch: core.Batch, tag: Callable[[Any], None]) -> None:
        """Have ``call`` start ``batch`` when the events that were ready have been handled; on the poll thread only.

        What the core does is done faster in one go than between pieces of Python, and so is Python.
        """
        self._starts.append((call, batch, tag))

    def _start_due(self) -> None:
        starts, self._starts = self._starts, []
        for call, batch, tag in starts:
            try:
                call.start_now(batch, tag)
            except BaseException:  # noqa: BLE001  as in `_run_guarded`
                _log.exception(_FAILED)

    @property
    def in_poll_thread(self) -> bool:
        """Whether it is the loop that calls."""
        return threading.get_ident() == self._thread_id

    def call_at(self, when: float, callback: Callback) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``; never, if the loop ends before."""
        with self._lock:
            heapq.heappush(self._timers, (when, next(self._order), callback))
            if when < self._next_at:
                self._plan()
                if not self.in_poll_thread:
                    self._post(_nothing)

    def call_soon(self, callback: Callback) -> None:
        """Call ``callback`` as soon as the events that are being handled have been."""
        self._soon.append(callback)
        if self._may_sleep and not self.in_poll_thread:
            with self._lock:
                self._post(_nothing)

    def _run_soon(self) -> None:
        """Call what is there by now; what that adds comes after the next event, if one is ready."""
        for _ in range(len(self._soon)):
            _run_guarded(self._soon.popleft())

    def call_when_idle(self, callback: Callback) -> None:
        """Call ``callback`` once all that was ready is handled, but soon in any case; on the poll thread only."""
        if not self._idle_callbacks:
            self._idle_by = self._clock() + _LONGEST_BUSY_S
        self._idle_callbacks.append(callback)

    def _run_idle(self) -> None:
        callbacks, self._idle_callbacks = self._idle_callbacks, []
        for callback in callbacks:
            _run_guarded(callback)
        self._start_due()

    def call_after_queued(self, callback: Callback) -> None:
        """Call ``callback`` once the events that the core has ready by now have been handled."""
        with self._lock:
            posted = self._post(callback)
        if not posted:
            self.call_soon(callback)

    def wake_by(self, call: core.Call) -> None:
        """Use ``call`` to wake the loop from now on."""
        if self._waker is None:
            with self._lock:
                self._waker = call
                self._plan()
        else:
            self._waker = call

    def _plan(self) -> None:
        """Set when to wake; with the lock held."""
        now = self._clock()
        next_at = self._timers[0][0] if self._timers else math.inf
        if self._waker is None:
            next_at = min(next_at, now + _UNWAKEABLE_SLEEP_S)
        self._next_at = next_at
        self._poll_until_epoch_s = None if next_at == math.inf else self._epoch_clock() + max(next_at - now, 0.0)

    def _run_timers(self) -> None:
        due: list[Callback] = []
        with self._lock:
            now = self._clock()
            while self._timers and self._timers[0][0] <= now:
                due.append(heapq.heappop(self._timers)[2])
            self._plan()
        for callback in due:
            _run_guarded(callback)
        self._start_due()

    def now(self) -> float:
        """Return the monotonic time, in seconds."""
        return self._clock()

    def _post(self, callback: Callback) -> bool:
        """Queue an event behind those that are ready, with the lock held. Returns False if nothing can carry it."""
        if self._waker is None or self._closed:
            return False

        def arrived(_event: core.BatchEvent) -> None:
            with self._lock:
                self._posted -= 1
            callback()

        posted = self._waker.start_server_batch((), arrived) == 0
        self._posted += posted
        return posted

    def _close(self) -> bool:
        """Start no more events; returns False if one is still to arrive."""
        with self._lock:
            self._closed = self._posted == 0
            if self._closed:
                self._waker = None
            return self._closed


def _nothing() -> None:
    pass


def _run_guarded(callback: Callback) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001  the loop serves every call, and has no one to tell
        _log.exception(_FAILED)
