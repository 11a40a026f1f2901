"""Takes down the calls that end, and shows them, many at a time, to those who count and log them."""

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from inferd.call_facts import CallFacts
from inferd.observability.calls import Call, ResultListener, Status, listen_for_results
from inferd.observability.coalescing_thread import GatheringThread

_log = logging.getLogger(__name__)

#: One call that ended: when it ended and when it started (s on the monotonic clock), method, peer as gRPC's core writes
#: it, status, details, facts and annotations, None if there are none. A plain tuple, because one is made for each call.
EndedCall = tuple[float, float, str, bytes, Status, str, CallFacts, dict[str, Any] | None]

#: Must not block. What it raises is logged, and the calls are lost to it.
Consumer = Callable[[Sequence[EndedCall]], None]

#: As many wait only if the thread does not come to run; whoever brings more then works them off instead.
_MOST_WAITING = 10_000


class CallRecorder:
    """The interceptor that leaves a tuple for each call that ends; to be the outermost, so that it sees all of it.

    What is to be done with them takes several times as long when it is done between other things, so it is left to a
    thread that lets calls gather for ``gather_s``. A record holds texts and numbers and what was found out about the
    call, so that those that wait keep no messages alive.

    Invariant: each call is shown once to each consumer, by one thread at a time. Threads: ``started`` the poll thread,
    ``finished`` and ``flush`` any, the rest the main one.
    """

    def __init__(self, *, gather_s: float = 0.02) -> None:
        self._ended: deque[EndedCall] = deque()
        self._consumers: list[Consumer] = []
        # Reentrant, because a finalizer that runs while calls are shown may end another one.
        self._lock = threading.RLock()
        self._thread = GatheringThread("call-recorder", self.flush, gather_s=gather_s)
        #: Is told of each result of the streams that begin from now on, if anybody.
        self.result_listener: ResultListener | None = None

    def add(self, consumer: Consumer) -> None:
        """Show calls to ``consumer``, too; before the first."""
        self._consumers.append(consumer)

    def start(self) -> None:
        """Begin to show what ends. A process that just ends still shows it."""
        atexit.register(self.flush)
        self._thread.start()

    def stop(self) -> None:
        """Show what has ended by now, and end the thread."""
        atexit.unregister(self.flush)
        self._thread.stop(timeout_s=5)

    def started(self, call: Call) -> None:
        """Let every call go on."""
        if self.result_listener is not None:
            listen_for_results(call, self.result_listener)

    def finished(self, call: Call, code: Status, details: str) -> None:
        """Take down a call that ended."""
        ended, annotations = self._ended, call.annotations or None
        ended.append(
            (call.ended_at, call.started_at, call.method, call.raw_peer, code, details, call.facts, annotations)
        )
        if not self._thread.is_awake:
            self._thread.rouse()
        elif len(ended) > _MOST_WAITING:
            self.flush()

    def flush(self) -> bool:
        """Show now what has ended by now. Returns whether there was anything."""
        with self._lock:
            calls = [self._ended.popleft() for _ in range(len(self._ended))]
            for consume in self._consumers if calls else ():
                try:
                    consume(calls)
                except Exception:  # noqa: BLE001  the others must see them, and the thread goes on
                    _log.exception("calls that ended could not be told of", extra={"calls": len(calls)})
        return bool(calls)
