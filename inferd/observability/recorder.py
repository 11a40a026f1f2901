"""Records finished calls and delivers them in batches to metrics and the access log."""

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from inferd.call_context import CallContext
from inferd.observability.coalescing_thread import CoalescingThread
from inferd.observability.stream_results import ResultListener, listen_for_results
from inferd.rpc import Call

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class FinishedCall:
    """Record of a call: times in seconds on the monotonic clock, ``peer`` as gRPC's core writes it.

    ``annotations`` are None if there are none. Do not modify. (Not frozen, because one is created for each call.)
    """

    ended_at: float
    started_at: float
    method: str
    peer: bytes
    status: grpc.StatusCode
    details: str
    context: CallContext
    annotations: dict[str, Any] | None


#: Must not block. Its exceptions are logged, and it does not get the calls again.
Consumer = Callable[[Sequence[FinishedCall]], None]

#: Reached only if the thread is starved of CPU; then the thread that ends a call delivers the backlog.
_MAX_PENDING = 10_000


class CallRecorder:
    """Interceptor that records each finished call; must be the outermost, so that it sees rejected calls too.

    Processing records one by one between requests takes several times as long as in batches, so a thread delivers them
    every ``delay_s``. Records never reference messages.

    Invariant: each call is delivered once to each consumer, by one thread at a time. Threads: ``started`` the poll
    thread, ``finished`` and ``flush`` any, the rest the main one.
    """

    def __init__(self, *, delay_s: float = 0.02) -> None:
        self._finished: deque[FinishedCall] = deque()
        self._consumers: list[Consumer] = []
        # Reentrant, because a finalizer that runs during delivery may end another call.
        self._lock = threading.RLock()
        self._thread = CoalescingThread("call-recorder", self.flush, delay_s=delay_s)
        #: Receives each result of the streams that start from now on, if set.
        self.result_listener: ResultListener | None = None

    def add(self, consumer: Consumer) -> None:
        """Deliver calls to ``consumer`` as well; before the first call."""
        self._consumers.append(consumer)

    def start(self) -> None:
        """Start delivering; what is pending when the process exits is delivered too."""
        atexit.register(self.flush)
        self._thread.start()

    def stop(self) -> None:
        """Deliver pending calls, and end the thread."""
        atexit.unregister(self.flush)
        self._thread.stop(timeout_s=5)

    def started(self, call: Call) -> None:
        """Accept the call; a stream reports its results, if anything listens."""
        if self.result_listener is not None:
            listen_for_results(call, self.result_listener)

    def finished(self, call: Call, code: grpc.StatusCode, details: str) -> None:
        """Record a finished call."""
        times = (call.ended_at, call.started_at)
        annotations = call.annotations or None
        self._finished.append(
            FinishedCall(*times, call.method, call.raw_peer, code, details, call.context, annotations)
        )
        if not self._thread.is_awake:
            self._thread.wake()
        elif len(self._finished) > _MAX_PENDING:
            self.flush()

    def flush(self) -> bool:
        """Deliver pending calls; return whether there were any."""
        with self._lock:
            calls = [self._finished.popleft() for _ in range(len(self._finished))]
            for consume in self._consumers if calls else ():
                try:
                    consume(calls)
                except Exception:  # noqa: BLE001  the other consumers must get the calls, and the thread must go on
                    _log.exception("call record consumer failed", extra={"calls": len(calls)})
        return bool(calls)
