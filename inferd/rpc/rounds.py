"""A round of the poll loop: the core's events that are taken together, and the batches that are started after them.

Reading: the poll thread also reads the sockets (docs/decisions/rpc-one-thread-reads.md). A poll that finds no event
reads one socket, a poll that sleeps reads all. So under load, one round every 2 ms ends only after 16 polls without an
event: with one socket a round, a rarely read connection waited for 0.6 s beside four busy streams, instead of 13 ms.

Gathering: for 0.1 s after a call was rejected, rounds begin at least 3 ms apart, take up to 512 events, and read all
sockets, unless callbacks wait, which may be runs of a model. Full rounds of 64 events follow at once, with a large one
after every eight. So the thread interrupts runs less often, and no connection waits until all that others have sent is
handled (docs/decisions/rpc-gathering.md). While calls are left unread (`unread_calls`), each round follows at once,
reads all sockets, and takes up to 512 events.

Sharing: while calls over HTTP come too, a round takes up to 16 events, the thread gives way between events and between
batches (`turns`), and a round ends early when a call over HTTP arrives.
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from inferd.rpc import core
from inferd.rpc.corks import Corks
from inferd.rpc.turns import POLL_PIECES, Turns

_log = logging.getLogger("inferd.rpc")

_FAILED = "a callback on the poll thread failed"
_MAX_EVENTS = 64
_MAX_SHARED_EVENTS = 16
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

    def __init__(self, corks: Corks | None, turns: Turns) -> None:
        self._corks = corks
        self._turns = turns
        self.waiting: list[DeferredBatch] = []

    def start(self) -> None:
        """Start all of them."""
        if not self.waiting:
            return
        deferred = self.waiting.copy()
        self.waiting.clear()
        corked = self._cork(deferred) if len(deferred) > 1 else ()
        turns = self._turns
        turns.poll_thread.used()
        is_shared = turns.are_shared
        for number, (call, batch, tag) in enumerate(deferred, 1):
            try:
                error = call.core_call.start_server_batch(batch, tag)
                if error:
                    call.batch_refused(batch, tag, error)
            except BaseException:  # noqa: BLE001  as in `PollLoop`
                _log.exception(_FAILED)
            if is_shared and number % POLL_PIECES == 0:
                turns.let_http()
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

    def __init__(
        self, queue: core.Queue, clock: Callable[[], float], sleep: Callable[[float], None], turns: Turns
    ) -> None:
        self.queue = queue
        self._turns = turns
        self._clock = clock
        self._sleep = sleep
        #: The next round ends after this many polls without an event, or this many events.
        self._empty_polls = 1
        self._most_events = _MAX_EVENTS
        self._full_rounds = 0
        #: Events for the next round, as the last one ended early.
        self.held: list[core.Event] = []
        #: Time at which a round is to read all sockets.
        self.read_all_at = -math.inf
        #: Time until which rounds are gathered, and at which the next one may begin.
        self.gather_until = -math.inf
        self._next_round_at = -math.inf
        #: When calls were last left unread at the end of a round.
        self.late_at = -math.inf

    def wait(self, until_epoch_s: float | None) -> core.Event:
        """Sleep until an event comes, at most until ``until_epoch_s``."""
        thread = self._turns.poll_thread
        thread.end_round()
        since = self._clock()
        event = self.queue.poll(until_epoch_s)
        thread.begin_round()
        now = self._clock()
        if now - since > _SLEPT_S:
            self.read_all_at = now + _READ_ALL_INTERVAL_S
        return event

    def end(self) -> None:
        """End the last round, as the loop ends."""
        self._turns.poll_thread.end_round()

    def read_all_next(self, now: float) -> None:
        """Read all sockets in the next round."""
        self._empty_polls = _READ_ALL_POLLS
        self.read_all_at = now + _READ_ALL_INTERVAL_S

    def gather(self, now: float) -> None:
        """Gather the following rounds, as a call was rejected at ``now``."""
        self.gather_until = now + _GATHERED_S

    def wait_to_gather(self, now: float) -> None:
        """Sleep until the next round may begin; it reads all sockets and takes all events that have come."""
        if 0 < self._full_rounds < _MAX_FULL_ROUNDS:
            return
        if self._full_rounds == 0 and now < self._next_round_at:
            thread = self._turns.poll_thread
            thread.end_round()
            self._sleep(self._next_round_at - now)
            thread.begin_round()
            now = self._clock()
        self._next_round_at = now + _GATHER_INTERVAL_S
        self._full_rounds = 0
        self._take_many_next(now)

    def note_late(self, now: float) -> None:
        """Take all events that have come in the next round, as calls were left unread in this one."""
        self.late_at = now
        self._take_many_next(now)

    def _take_many_next(self, now: float) -> None:
        """Read all sockets in the next round, and take all events that have come."""
        self.read_all_next(now)
        self._most_events = _GATHERED_EVENTS

    def handle_ready(self, event: core.Event) -> bool:
        """Take the events that are ready after ``event``, handle all; return whether no further one was ready.

        Those held back by the round before come first; ``event`` is the first of them if there are any.
        """
        poll = self.queue.poll
        events = [event, *self.held]
        self.held = []
        is_idle = False
        turns = self._turns
        is_shared = turns.are_shared
        empty_polls, self._empty_polls = self._empty_polls, 1
        most_events, self._most_events = self._most_events, _MAX_SHARED_EVENTS if is_shared else _MAX_EVENTS
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
        for number, event in enumerate(events, 1):
            tag = event.tag
            assert tag is not None
            try:
                tag(event)
            except BaseException:  # noqa: BLE001  as in `PollLoop`, inlined for the number of events
                _log.exception(_FAILED)
            if is_shared and number % POLL_PIECES == 0:
                turns.let_http()
                if turns.http_arrived:
                    self.held = events[number:]
                    break
        return is_idle
