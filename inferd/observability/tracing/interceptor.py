"""Sample calls, and record those that are traced."""

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import grpc

from inferd.call_context import (
    GENERATED_KEY,
    HTTP_STATUS_KEY,
    REQUEST_ID_KEY,
    Generated,
    request_id_of,
    sanitized_id,
)
from inferd.observability import timing
from inferd.observability.stream_results import StreamResult, listen_for_results
from inferd.observability.timing import Stages
from inferd.observability.tracing.plan import Sampling
from inferd.rpc import Call

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1
_NO_VERSION = "ff"
_MAX_STATE = 512


class Parent(NamedTuple):
    """The caller's span, from W3C Trace Context."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(value: str | bytes) -> Parent | None:
    """Parse a ``traceparent``; return None if it is invalid, and then ignored."""
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _NO_VERSION or (version == "00" and more) or not (int(trace_id, 16) and int(span_id, 16)):
        return None
    return Parent(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def join_tracestate(before: str, value: str | bytes) -> str:
    """Join several ``tracestate`` values; ignore one that makes the result too long."""
    if not isinstance(value, str):
        return before
    together = f"{before},{value}" if before else value
    return together if len(together) <= _MAX_STATE else before


@dataclass(frozen=True, kw_only=True, slots=True)
class SpanRecord:
    """The data of a span. ``trace_id``, ``span_id`` and ``parent_id`` in hexadecimal, the last one empty for a root.

    ``started_at`` and ``ended_at`` are in seconds on the monotonic clock. ``status`` is the name of the gRPC status. A
    call has a ``method``, a request of a stream has none; ``generated`` is that of a language model. Never references
    the call itself.
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
    generated: Generated | None = None


class SpanQueue:
    """A bounded queue of span records; records beyond the bound are dropped and counted.

    Threads: `put` any, `take` and `drop` the one that exports spans.
    """

    def __init__(self, max_queued: int = 4096) -> None:
        self._max_queued = max_queued
        self._queued: deque[SpanRecord] = deque()
        self._lock = threading.Lock()
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Number of spans dropped here or by the exporter."""
        return self._dropped

    def __len__(self) -> int:
        """Number of queued records."""
        return len(self._queued)

    def put(self, record: SpanRecord) -> None:
        """Queue ``record``. Never blocks, never raises."""
        if len(self._queued) < self._max_queued:
            self._queued.append(record)
        else:
            self.drop(1)

    def take(self, most: int) -> list[SpanRecord]:
        """Dequeue at most ``most`` records, oldest first."""
        return [self._queued.popleft() for _ in range(min(len(self._queued), most))]

    def drop(self, spans: int) -> None:
        """Count dropped spans."""
        with self._lock:
            self._dropped += spans


_COUNTS = ("requests", "messages_in", "messages_out", HTTP_STATUS_KEY)
_MAX_TEXT = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """The span of a traced call."""

    trace_id: str
    span_id: str
    parent_id: str
    tracestate: str
    stages: Stages


class TracingInterceptor:
    """Parent-based sampler: follows the caller's decision, else samples a ratio; see `Sampling`.

    An unsampled call costs a scan of its metadata and a random number. When a sampled call ends, its record is queued
    for another thread, which builds and exports spans. The annotations ``trace_id`` and ``span_id`` mark a traced call
    for the access log and the exemplars.

    Unauthenticated callers cannot fill the queue: calls of the ``untraced`` methods, which need no credential, are
    never traced, and calls that end as UNAUTHENTICATED are not recorded if their caller requested the trace.

    Threads: ``started`` the poll thread; traced calls end in any, several at the same time. Never blocks or raises.
    """

    #: Traced calls register a finisher.
    finished = None

    def __init__(
        self,
        sampling: Sampling,
        queue: SpanQueue,
        *,
        untraced: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
        # Several times faster than the operating system's; ids are no secrets.
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
        """Decide whether to trace the call."""
        if call.method in self._untraced:
            return
        parent, tracestate = None, ""
        # By index, because unpacking the named tuples of gRPC's core is slower.
        for pair in call.metadata if self._sampling.reads_parent else ():
            if pair[0] == "traceparent":
                parent = parse_traceparent(pair[1])
            elif pair[0] == "tracestate":
                tracestate = join_tracestate(tracestate, pair[1])
        if self._is_sampled(parent) if parent is not None else self._draw() < self._ratio:
            self._trace(call, parent, tracestate)

    def _is_sampled(self, parent: Parent) -> bool:
        """Whether to trace a call with a parent span."""
        if self._sampling.by_parent:
            return parent.sampled
        # By the part of the trace id that other ratio samplers use, so that traces are complete.
        return int(parent.trace_id[-16:], 16) < self._ratio * 2**64

    def _ended(self, span: _Span, call: Call, code: grpc.StatusCode, details: str) -> None:
        """Queue the record of a traced call."""
        if span.parent_id and code is grpc.StatusCode.UNAUTHENTICATED:
            return
        context, annotations = call.context, call.annotations
        found = {
            "model": context.model,
            "version": context.version,
            "rows": context.rows,
            "principal": context.principal,
        }
        self._queue.put(
            SpanRecord(
                trace_id=span.trace_id,
                span_id=span.span_id,
                parent_id=span.parent_id,
                tracestate=span.tracestate,
                method=call.method[:_MAX_TEXT],
                started_at=call.started_at,
                ended_at=call.ended_at,
                status=code.name,
                error=details[:_MAX_TEXT],
                peer=call.peer,
                facts={
                    **{name: value for name, value in found.items() if value is not None},
                    **{name: annotations[name] for name in _COUNTS if name in annotations},
                    REQUEST_ID_KEY: request_id_of(context),
                },
                stages=span.stages,
                generated=annotations.get(GENERATED_KEY),  # type: ignore[arg-type]  # set by `generated_by`
            )
        )

    def _trace(self, call: Call, parent: Parent | None, tracestate: str) -> None:
        annotations = call.annotations
        span = _Span(
            trace_id=parent.trace_id if parent else self._id(128),
            span_id=self._id(64),
            parent_id=parent.span_id if parent else "",
            tracestate=tracestate if parent else "",
            stages=timing.measure(annotations),
        )
        annotations["trace_id"], annotations["span_id"] = span.trace_id, span.span_id
        listen_for_results(call, partial(self._result, span))
        call.on_finished(partial(self._ended, span))

    def _result(self, span: _Span, _call: Call, result: StreamResult) -> None:
        """Queue the record of one request of a traced stream."""
        now = self._clock()
        facts = {"model": result.model, "version": result.version, "rows": result.rows}
        facts[REQUEST_ID_KEY] = sanitized_id(result.request_id)
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
                error=result.error[:_MAX_TEXT],
                peer="",
                facts={name: value for name, value in facts.items() if value},
                stages=result.stages,
                generated=result.generated,
            )
        )

    def _id(self, bits: int) -> str:
        """Return a random id other than 0."""
        return f"{self._random.getrandbits(bits) or 1:0{bits // 4}x}"
