"""Decides which calls are traced, and takes down what becomes of them."""

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from inferd import request_id
from inferd.observability import timing
from inferd.observability.calls import Call, Status, StreamResult, listen_for_results
from inferd.observability.timing import Stages
from inferd.observability.tracing.plan import Sampling

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_NO_VERSION = "ff"
_LONGEST_STATE = 512


class Parent(NamedTuple):
    """The caller's span."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str | bytes) -> Parent | None:
    """Return what a ``traceparent`` says, or None if it is not one, and then counts for nothing."""
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _NO_VERSION or (version == "00" and more) or not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def join_tracestate(before: str, value: str | bytes) -> str:
    """Return what several ``tracestate`` say together; one that makes it too long counts for nothing."""
    if not isinstance(value, str):
        return before
    together = f"{before},{value}" if before else value
    return together if len(together) <= _LONGEST_STATE else before


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanRecord:
    """A span to be made. ``trace_id``, ``span_id`` and ``parent_id`` in hexadecimal, the last one empty for a root.

    ``started_at`` and ``ended_at`` are on the monotonic clock, in seconds. ``status`` is the gRPC status by its name.
    A call has a ``method``, a request of a stream has none. Holds texts and numbers, and no part of the call itself.
    """

    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    method: str
    started_at: float
    ended_at: float
    status: str
    error: str
    peer: str
    facts: Mapping[str, object]
    stages: Stages


class SpanQueue:
    """Records that wait, a bounded number of them; further ones are dropped and counted.

    Threads: `put` any, `take` and `lose` the one that makes spans of them.
    """

    def __init__(self, max_waiting: int = 4096) -> None:
        self._max_waiting = max_waiting
        self._waiting: deque[SpanRecord] = deque()
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many spans were lost, here or on their way."""
        return self._dropped

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def put(self, record: SpanRecord) -> None:
        """Have ``record`` become a span soon. Never waits, never raises."""
        if len(self._waiting) < self._max_waiting:
            self._waiting.append(record)
        else:
            self.lose(1)

    def take(self, most: int) -> list[SpanRecord]:
        """Take those that have waited longest."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), most))]

    def lose(self, spans: int) -> None:
        """Count spans that will not arrive."""
        with self._lock:
            self._dropped += spans


_COUNTS = ("requests", "messages_in", "messages_out")
_LONGEST_TEXT = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """The span of a call that is traced."""

    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    stages: Stages


class TracingInterceptor:
    """Traces those calls whose callers trace them, and of the others a share, or as `Sampling` says otherwise.

    Calls that are not traced pay for a look at their metadata and for a random number. Of those that are, a record is
    left at their end for another thread, which makes spans of it. The annotations ``trace_id`` and ``span_id`` say for
    the log and for the metrics that a call is traced.

    Strangers cannot fill the queue: calls of the ``untraced`` methods, which are open to everyone, are left out, and so
    are those that are refused for want of a credential where the caller wanted the trace.

    Threads: ``started`` the poll thread; traced calls end in any, at the same time. Nothing here blocks or raises.
    """

    #: Calls that are traced are asked for their end.
    finished = None

    def __init__(
        self,
        sampling: Sampling,
        queue: SpanQueue,
        *,
        untraced: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        # Not for secrets, and several times faster than the operating system's.
        source: random.Random | None = None,
    ) -> None:
        self._sampling = sampling
        self._ratio = sampling.ratio
        self._queue = queue
        self._untraced = frozenset(untraced)
        self._clock = clock
        self._random = source or random.Random()  # noqa: S311  see above
        self._draw = self._random.random

    def started(self, call: Call) -> None:
        """Decide whether the call is traced."""
        if call.method in self._untraced:
            return
        parent, tracestate = None, ""
        # By index, because pairs of gRPC's core are named tuples, which take long to unpack.
        for pair in call.metadata if self._sampling.reads_parent else ():
            if pair[0] == "traceparent":
                parent = parse_traceparent(pair[1])
            elif pair[0] == "tracestate":
                tracestate = join_tracestate(tracestate, pair[1])
        if self._is_sampled(parent) if parent is not None else self._draw() < self._ratio:
            self._trace(call, parent, tracestate)

    def _is_sampled(self, parent: Parent) -> bool:
        """Whether a call is traced whose caller has told its own trace."""
        if self._sampling.by_parent:
            return parent.sampled
        # As all who go by this part of the id do, so that a trace is whole.
        return int(parent.trace_id[-16:], 16) < self._ratio * 2**64

    def _ended(self, span: _Span, call: Call, code: Status, details: str) -> None:
        """Leave a record of a traced call."""
        if span.parent_id and code.name == "UNAUTHENTICATED":
            return
        facts, annotations = call.facts, call.annotations
        found = {"model": facts.model, "version": facts.version, "rows": facts.rows, "principal": facts.principal}
        self._queue.put(
            SpanRecord(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_id=span.parent_id,
                tracestate=span.tracestate,
                method=call.method[:_LONGEST_TEXT],
                started_at=call.started_at,
                ended_at=call.ended_at,
                status=code.name,
                error=details[:_LONGEST_TEXT],
                peer=call.peer,
                facts={
                    **{name: value for name, value in found.items() if value is not None},
                    **{name: annotations[name] for name in _COUNTS if name in annotations},
                    request_id.KEY: request_id.of(facts),
                },
                stages=span.stages,
            )
        )

    def _trace(self, call: Call, parent: Parent | None, tracestate: str) -> None:
        annotations = call.annotations
        span = _Span(
            trace_id=parent.trace_id if parent else self._id(128),
            span_id=self._id(64),
            parent_id=parent.span_id if parent else "",
            tracestate=tracestate if parent else "",
            stages=timing.wanted(annotations),
        )
        annotations["trace_id"], annotations["span_id"] = span.trace_id, span.span_id
        listen_for_results(call, partial(self._result, span))
        call.on_finished(partial(self._ended, span))

    def _result(self, span: _Span, _call: Call, result: StreamResult) -> None:
        """Leave a record of one request of a traced stream."""
        now = self._clock()
        facts = {"model": result.model, "version": result.version, "rows": result.rows}
        facts[request_id.KEY] = request_id.cleaned(result.request_id)
        self._queue.put(
            SpanRecord(
                trace_id=span.trace_id,
                span_id=self._id(64),
                parent_id=span.span_id,
                tracestate=span.tracestate,
                method="",
                started_at=now if result.stages.decoding_at is None else result.stages.decoding_at,
                ended_at=now,
                status=result.status,
                error=result.error[:_LONGEST_TEXT],
                peer="",
                facts={name: value for name, value in facts.items() if value},
                stages=result.stages,
            )
        )

    def _id(self, bits: int) -> str:
        """Return a random id, which must not be 0."""
        return f"{self._random.getrandbits(bits) or 1:0{bits // 4}x}"
