"""Makes OpenTelemetry's spans of what was taken down. Needs the package opentelemetry-proto.

Spans are written as messages of OTLP at once, which takes a seventh of the time that OpenTelemetry's SDK takes:
docs/decisions/observability-tracing.md has the figures.
"""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from inferd.observability.timing import BatchTiming
from inferd.observability.tracing_records import SpanRecord

#: gRPC's statuses by their numbers.
_CODES = {
    name: number
    for number, name in enumerate(
        (
            *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
            *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE"),
            *("UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
        )
    )
}

#: Statuses that are a server's fault, by OpenTelemetry's conventions for gRPC.
_ERRORS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))

#: The call was sampled, it is known whether its parent is in another process, and it is.
_LOCAL = 0x101
_REMOTE_PARENT = 0x301

_NS_PER_S = 1_000_000_000


@dataclass(slots=True)
class _Batch:
    """A batch of which some requests are traced; ``timing`` keeps its identity from being given to another one."""

    timing: BatchTiming
    facts: Mapping[str, object]
    trace_id: bytes
    span_id: bytes
    links: list[Span.Link] = field(default_factory=list)


class SpanMaker:
    """Turns records into requests of OTLP; one thread.

    A batch has a trace of its own, because it belongs to those of all of its requests. Their records come one by one,
    so its span is made one `make` after the first of them.
    """

    def __init__(
        self,
        resource: Mapping[str, str],
        version: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        self._resource = Resource(attributes=_attributes(resource))
        self._scope = InstrumentationScope(name="inferd", version=version)
        self._clock = clock
        self._epoch_s = epoch_s
        self._random = random.Random()  # noqa: S311  (ids are no secrets)
        self._batches: dict[int, _Batch] = {}
        self._ahead_ns = 0

    def make(self, records: Sequence[SpanRecord]) -> ExportTraceServiceRequest | None:
        """Return the spans of ``records`` and of the batches before, or None if there are none."""
        self._ahead_ns = int(self._epoch_s() * _NS_PER_S) - int(self._clock() * _NS_PER_S)
        earlier, self._batches = self._batches, {}
        spans = [span for record in records for span in self._request_spans(record, earlier)]
        for batch in earlier.values():
            spans += self._batch_spans(batch)
        if not spans:
            return None
        scope_spans = ScopeSpans(scope=self._scope, spans=spans)
        return ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scope_spans])]
        )

    def _request_spans(self, record: SpanRecord, earlier: Mapping[int, _Batch]) -> Iterable[Span]:
        trace_id, span_id = bytes.fromhex(record.trace_id), bytes.fromhex(record.span_id)
        attributes = _facts(record.facts)
        batch = None
        if record.stages.batch is not None:
            batch = self._batch(record.stages.batch, record.facts, earlier)
            batch.links.append(Span.Link(trace_id=trace_id, span_id=span_id, trace_state=record.tracestate))
            attributes["inferd.batch.rows"] = batch.timing.rows
            attributes["inferd.batch.trace_id"] = batch.trace_id.hex()
            attributes["inferd.batch.span_id"] = batch.span_id.hex()
        if record.method:
            attributes |= _rpc_attributes(record)
        failed = record.status in _ERRORS
        yield Span(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=bytes.fromhex(record.parent_id),
            trace_state=record.tracestate,
            flags=_REMOTE_PARENT if record.method and record.parent_id else _LOCAL,
            name=record.method.removeprefix("/") or "request",
            kind=Span.SPAN_KIND_SERVER if record.method else Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=self._ns(record.started_at),
            end_time_unix_nano=self._ns(record.ended_at),
            attributes=_attributes(attributes),
            status=Status(code=Status.STATUS_CODE_ERROR, message=record.error) if failed else None,
        )
        for name, began_at, ended_at in _stages(record):
            links = [Span.Link(trace_id=batch.trace_id, span_id=batch.span_id)] if batch and name == "run" else ()
            yield self._child(trace_id, span_id, name, began_at, ended_at, links)

    def _batch(self, timing: BatchTiming, facts: Mapping[str, object], earlier: Mapping[int, _Batch]) -> _Batch:
        batch = earlier.get(id(timing)) or self._batches.get(id(timing))
        if batch is None:
            batch = self._batches[id(timing)] = _Batch(timing, facts, self._id(16), self._id(8))
        return batch

    def _batch_spans(self, batch: _Batch) -> Iterable[Span]:
        timing = batch.timing
        stacked_at = timing.started_at + timing.stack_s
        ran_at = stacked_at + timing.run_s
        model = {name: batch.facts[name] for name in ("model", "version") if name in batch.facts}
        yield Span(
            trace_id=batch.trace_id,
            span_id=batch.span_id,
            flags=_LOCAL,
            name="batch",
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=self._ns(timing.started_at),
            end_time_unix_nano=self._ns(ran_at),
            attributes=_attributes(_facts(model) | {"inferd.batch.rows": timing.rows}),
            links=batch.links,
        )
        yield self._child(batch.trace_id, batch.span_id, "stack", timing.started_at, stacked_at)
        yield self._child(batch.trace_id, batch.span_id, "run", stacked_at, ran_at)

    def _child(
        self,
        trace_id: bytes,
        parent_id: bytes,
        name: str,
        began_at: float,
        ended_at: float,
        links: Sequence[Span.Link] = (),
    ) -> Span:
        return Span(
            trace_id=trace_id,
            span_id=self._id(8),
            parent_span_id=parent_id,
            flags=_LOCAL,
            name=name,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=self._ns(began_at),
            end_time_unix_nano=self._ns(ended_at),
            links=links,
        )

    def _ns(self, at: float) -> int:
        """Return a time on the monotonic clock in nanoseconds since the epoch."""
        return int(at * _NS_PER_S) + self._ahead_ns

    def _id(self, nbytes: int) -> bytes:
        return self._random.randbytes(nbytes)


def _stages(record: SpanRecord) -> Iterable[tuple[str, float, float]]:
    """Yield the stages that the request went through, with when each began and ended."""
    stages = record.stages
    if stages.decoding_at is not None and stages.decoded_at is not None:
        yield "decode", stages.decoding_at, stages.decoded_at
    if stages.batch is not None and stages.queue_s is not None:
        began_at = stages.batch.started_at
        stacked_at = began_at + stages.batch.stack_s
        yield "queue", began_at - stages.queue_s, began_at
        yield "stack", began_at, stacked_at
        yield "run", stacked_at, stacked_at + stages.batch.run_s
    if stages.encoding_at is not None and stages.encoded_at is not None:
        yield "encode", stages.encoding_at, stages.encoded_at


def _rpc_attributes(record: SpanRecord) -> dict[str, object]:
    service, _, method = record.method.removeprefix("/").rpartition("/")
    address, _, port = record.peer.partition(":")[2].rpartition(":")
    attributes: dict[str, object] = {
        "rpc.system": "grpc",
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": _CODES[record.status],
    }
    if address and port.isdecimal():
        attributes |= {"network.peer.address": address.strip("[]"), "network.peer.port": int(port)}
    return attributes


def _facts(facts: Mapping[str, object]) -> dict[str, object]:
    return {f"inferd.{name}": value for name, value in facts.items()}


def _attributes(values: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: object) -> AnyValue:
    if isinstance(value, int):
        return AnyValue(int_value=value)
    # File names that are not UTF-8 have no place in a message.
    return AnyValue(string_value=str(value).encode(errors="backslashreplace").decode())
