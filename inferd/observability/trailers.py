"""Trailing metadata: request id, server timing, ORCA load report."""

from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from inferd.call_context import ANONYMOUS, request_id_of, sanitized_id
from inferd.observability import timing
from inferd.observability.stream_results import listen_for_results
from inferd.observability.timing import Stages, StageTotals, server_timing
from inferd.rpc import Call, EncodedMetadata

#: Metadata keys of the request id and of the timing, in requests and in trailers.
ID_METADATA = "x-request-id"
_ENCODED_ID = ID_METADATA.encode()
TIMING_METADATA = "inferd-timing"

#: ORCA's keys: metadata that asks for a load report if it is ``bin``, and the trailer with the report.
LOAD_FORMAT_METADATA = "endpoint-load-metrics-format"
LOAD_METADATA = "endpoint-load-metrics-bin"

_REQUEST_KEYS = frozenset((ID_METADATA, TIMING_METADATA, LOAD_FORMAT_METADATA))

#: A constant, because looking up a member of an enum is slow.
_OK = grpc.StatusCode.OK

#: The annotation of a call with the trailers that its caller asked for.
_KEY = "trailers"


class TrailersInterceptor:
    """Reads the request id from the metadata, and adds the trailers that the caller asked for.

    The id is returned with every error, and with OK if the caller sent one. A load report is returned on demand, or
    always with ``report_always``, but not to unauthenticated callers, whom it would show whether an attack has an
    effect. Must be outside of all interceptors that may reject calls.

    Threads: ``started`` the poll thread, ``finished`` any, several at the same time. Neither blocks or raises.
    """

    def __init__(self, load_report: Callable[[], bytes], *, report_always: bool = False) -> None:
        self._load_report = load_report
        self._report_always = report_always

    def started(self, call: Call) -> None:
        """Parse what the caller asks for."""
        # By index, because unpacking the named tuples of gRPC's core is slower.
        for pair in call.metadata:
            if pair[0] in _REQUEST_KEYS and pair[1]:
                self._read(call, *pair)

    def finished(self, call: Call, code: grpc.StatusCode, details: str) -> None:  # noqa: ARG002  the contract
        """Add the trailers."""
        requested: _RequestedTrailers | None = call.annotations.get(_KEY)  # type: ignore[assignment]  # set in `_read`
        failed = code is not _OK
        if requested is None and not self._report_always:
            if failed:
                # An id is legal as it is, and refusals must cost little.
                call.add_trailing_metadata(EncodedMetadata(((_ENCODED_ID, request_id_of(call.context).encode()),)))
            return
        pairs: list[tuple[str, str | bytes]] = []
        if failed or (requested and requested.request_id):
            pairs.append((ID_METADATA, request_id_of(call.context)))
        if requested and requested.stages is not None:
            durations_s = requested.totals.durations_s() or requested.stages.durations_s()
            total = ("total", call.ended_at - call.started_at)
            pairs.append((TIMING_METADATA, server_timing([*durations_s, total])))
        wants_load = self._report_always or (requested and requested.load)
        if wants_load and code is not grpc.StatusCode.UNAUTHENTICATED and call.context.principal != ANONYMOUS:
            pairs.append((LOAD_METADATA, self._load_report()))
        if pairs:
            call.add_trailing_metadata(pairs)

    def _read(self, call: Call, key: str, value: str | bytes) -> None:
        annotations = call.annotations
        requested = annotations.setdefault(_KEY, _RequestedTrailers())
        assert isinstance(requested, _RequestedTrailers)
        if key == ID_METADATA:
            requested.request_id = True
            call.context.request_id = sanitized_id(str(value))
        elif key == LOAD_FORMAT_METADATA:
            requested.load = value == "bin"
        elif value == "1" and requested.stages is None:
            requested.stages = timing.measure(annotations)
            listen_for_results(call, lambda _, result: requested.totals.add(result.stages))


@dataclass(slots=True)
class _RequestedTrailers:
    """Trailers that a caller asked for. ``totals`` are for a stream, ``stages`` for a unary request."""

    request_id: bool = False
    load: bool = False
    stages: Stages | None = None
    totals: StageTotals = field(default_factory=StageTotals)
