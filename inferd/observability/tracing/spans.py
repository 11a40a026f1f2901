"""Build OpenTelemetry spans from records. Needs the extra ``otel``."""

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from inferd.call_context import HTTP_STATUS_KEY, BatchTiming, Generated
from inferd.observability.timing import LOAD
from inferd.observability.tracing.interceptor import SpanRecord
from inferd.plain_text import escaped

#: Statuses that are server errors by OpenTelemetry's conventions for gRPC.
_ERRORS = frozenset(("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"))

#: The event from the receipt of a request to the first token that was generated for it.
FIRST_TOKEN = "first_token"  # noqa: S105  (a token of text, not a secret)

_NS_PER_S = 1_000_000_000
_MS_PER_S = 1_000
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)

_Attributes = dict[str, str | int | float | Sequence[str]]


@dataclass(slots=True)
class _Batch:
    """A batch with traced requests; it keeps ``timing`` alive, whose id() is its key."""

    timing: BatchTiming
    attributes: _Attributes
    context: SpanContext
    links: list[Link] = field(default_factory=list)


class SpanBuilder:
    """Builds spans from records; one thread.

    A batch has a trace of its own, linked to those of its requests. Their records arrive one by one, so the span of a
    batch is built one `build` after the first of them.
    """

    def __init__(
        self,
        resource: Resource,
        version: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        epoch_s: Callable[[], float] = time.time,
    ) -> None:
        self._resource = resource
        self._scope = InstrumentationScope("inferd", version)
        self._clock = clock
        self._epoch_s = epoch_s
        self._random = random.Random()  # noqa: S311  (ids are no secrets)
        self._batches: dict[int, _Batch] = {}
        self._ahead_ns = 0

    def build(self, records: Sequence[SpanRecord]) -> list[ReadableSpan]:
        """Return the spans of ``records``, and of the batches of the records before."""
        self._ahead_ns = int(self._epoch_s() * _NS_PER_S) - int(self._clock() * _NS_PER_S)
        earlier, self._batches = self._batches, {}
        spans = [self._request_span(record, earlier) for record in records]
        return spans + [self._batch_span(batch) for batch in earlier.values()]

    def _request_span(self, record: SpanRecord, earlier: Mapping[int, _Batch]) -> ReadableSpan:
        trace_id = int(record.trace_id, 16)
        state = TraceState.from_header([record.tracestate]) if record.tracestate else None
        context = SpanContext(
            trace_id, int(record.span_id, 16), is_remote=False, trace_flags=_SAMPLED, trace_state=state
        )
        attributes = _facts(record.facts)
        links: tuple[Link, ...] = ()
        if record.stages.batch is not None:
            batch = self._batch(record.stages.batch, record.facts, earlier)
            batch.links.append(Link(context))
            attributes["inferd.batch.rows"] = batch.timing.rows
            links = (Link(batch.context),)
        if record.method:
            attributes |= _call_attributes(record)
            attributes.pop(f"inferd.{HTTP_STATUS_KEY}", None)
        if record.generated is not None:
            attributes |= _generation_attributes(record.generated, record.facts)
        return ReadableSpan(
            name=escaped(record.method.removeprefix("/")) or "request",
            context=context,
            # The parent of a call is its caller's span; of a request of a stream, the span of the stream.
            parent=SpanContext(trace_id, int(record.parent_id, 16), bool(record.method)) if record.parent_id else None,
            resource=self._resource,
            attributes=attributes,
            events=[self._event(*stage) for stage in _stages(record)],
            links=links,
            kind=SpanKind.SERVER if record.method else SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR, escaped(record.error)) if record.status in _ERRORS else _UNSET,
            start_time=self._ns(record.started_at),
            end_time=self._ns(record.ended_at),
            instrumentation_scope=self._scope,
        )

    def _batch(self, timing: BatchTiming, facts: Mapping[str, object], earlier: Mapping[int, _Batch]) -> _Batch:
        batch = earlier.get(id(timing)) or self._batches.get(id(timing))
        if batch is None:
            model = {name: facts[name] for name in ("model", "version") if name in facts}
            trace_id, span_id = self._random.getrandbits(128) or 1, self._random.getrandbits(64) or 1
            context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED)
            batch = self._batches[id(timing)] = _Batch(timing, _facts({**model, "batch.rows": timing.rows}), context)
        return batch

    def _batch_span(self, batch: _Batch) -> ReadableSpan:
        return ReadableSpan(
            name="batch",
            context=batch.context,
            resource=self._resource,
            attributes=batch.attributes,
            events=[self._event(*stage) for stage in _batch_stages(batch.timing)],
            links=batch.links,
            start_time=self._ns(batch.timing.started_at),
            end_time=self._ns(batch.timing.started_at + batch.timing.stack_s + batch.timing.run_s),
            instrumentation_scope=self._scope,
        )

    def _event(self, stage: str, began_at: float, duration_s: float) -> Event:
        """Return the event of a stage, at its start and with its duration."""
        return Event(stage, {"duration_ms": round(duration_s * _MS_PER_S, 3)}, self._ns(began_at))

    def _ns(self, at: float) -> int:
        """Convert a time on the monotonic clock to nanoseconds since the epoch."""
        return int(at * _NS_PER_S) + self._ahead_ns


def _stages(record: SpanRecord) -> Iterable[tuple[str, float, float]]:
    """Yield name, start and duration in seconds of each stage that the request has completed."""
    stages = record.stages
    if stages.load_s is not None and stages.decoding_at is not None:
        yield LOAD, stages.decoding_at - stages.load_s, stages.load_s
    if stages.decoding_at is not None and stages.decoded_at is not None:
        yield "decode", stages.decoding_at, stages.decoded_at - stages.decoding_at
    if stages.batch is not None and stages.queue_s is not None:
        yield "queue", stages.batch.started_at - stages.queue_s, stages.queue_s
        yield from _batch_stages(stages.batch)
    if record.generated is not None and record.generated.first_token_s is not None:
        yield FIRST_TOKEN, record.started_at, record.generated.first_token_s
    if stages.encoding_at is not None and stages.encoded_at is not None:
        yield "encode", stages.encoding_at, stages.encoded_at - stages.encoding_at


def _batch_stages(timing: BatchTiming) -> Iterable[tuple[str, float, float]]:
    yield "stack", timing.started_at, timing.stack_s
    yield "run", timing.started_at + timing.stack_s, timing.run_s


def _call_attributes(record: SpanRecord) -> _Attributes:
    """Return what identifies a call by the conventions of OpenTelemetry for its protocol."""
    verb, _, route = escaped(record.method).partition(" ")
    if route:
        attributes: _Attributes = {"http.request.method": verb, "http.route": route}
        status = record.facts.get(HTTP_STATUS_KEY)
        if isinstance(status, int):
            attributes["http.response.status_code"] = status
    else:
        service, _, method = verb.removeprefix("/").rpartition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "rpc.grpc.status_code": grpc.StatusCode[record.status].value[0],
        }
    address, _, port = record.peer.partition(":")[2].rpartition(":")
    if address and port.isdecimal():
        attributes |= {"network.peer.address": address.strip("[]"), "network.peer.port": int(port)}
    return attributes


def _generation_attributes(generated: Generated, facts: Mapping[str, object]) -> _Attributes:
    """Return what OpenTelemetry's conventions for generative models say about a request and its answer."""
    attributes: _Attributes = {
        "gen_ai.operation.name": generated.operation,
        "gen_ai.usage.input_tokens": generated.prompt_tokens,
        "gen_ai.usage.output_tokens": generated.tokens,
    }
    if "model" in facts:
        attributes["gen_ai.request.model"] = escaped(str(facts["model"]))
    if generated.finish_reasons:
        attributes["gen_ai.response.finish_reasons"] = tuple(generated.finish_reasons)
    return attributes


def _facts(facts: Mapping[str, object]) -> _Attributes:
    return {f"inferd.{name}": value if isinstance(value, int) else escaped(str(value)) for name, value in facts.items()}
