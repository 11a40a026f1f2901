"""Decides which calls are traced, and takes down what becomes of them."""

import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from inferd import request_id
from inferd.observability import timing
from inferd.observability.calls import Call, Status, StreamResult, listen_for_results
from inferd.observability.timing import Stages
from inferd.observability.tracing_context import Parent, join_tracestate, parse_traceparent
from inferd.observability.tracing_plan import Sampling
from inferd.observability.tracing_records import SpanQueue, SpanRecord

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
