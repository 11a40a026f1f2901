"""What a call's status is accompanied by: its id, where its time went, and how loaded the server is."""

from collections.abc import Callable
from dataclasses import dataclass, field

from inferd import request_id
from inferd.observability import timing
from inferd.observability.calls import Call, Status, listen_for_results
from inferd.observability.timing import Stages, StageTotals, server_timing
from inferd.principal import ANONYMOUS

#: Metadata that names the call, and that asks for the timing; both come back under the same key.
ID_METADATA = "x-request-id"
TIMING_METADATA = "inferd-timing"

#: Metadata that asks for a load report if it says ``bin``, and where that comes back; ORCA's own names.
LOAD_FORMAT_METADATA = "endpoint-load-metrics-format"
LOAD_METADATA = "endpoint-load-metrics-bin"

_ASKED_FOR = frozenset((ID_METADATA, TIMING_METADATA, LOAD_FORMAT_METADATA))

#: Where a call's annotations have what its caller asked for.
_ASKED = "trailers"


class TrailersInterceptor:
    """Takes the request's id from the metadata, and gives callers what they have asked for.

    The id goes out with every error, and with OK to those who sent one. A load report goes out to those who ask, or
    with ``report_always`` to everyone, but not to strangers, to whom it would show whether an attack has an effect. It
    stands outside of whatever may refuse calls.

    Threads: ``started`` the poll thread, ``finished`` any, at the same time. Neither blocks or raises.
    """

    def __init__(self, load_report: Callable[[], bytes], *, report_always: bool = False) -> None:
        self._load_report = load_report
        self._report_always = report_always
        # Enumerations answer for their names slowly, and nearly all calls end with the same status.
        self._ok: Status | None = None

    def started(self, call: Call) -> None:
        """Note what the caller asks for."""
        # By index, because pairs of gRPC's core are named tuples, which take long to unpack.
        for pair in call.metadata:
            if pair[0] in _ASKED_FOR and pair[1]:
                self._ask(call, *pair)

    def finished(self, call: Call, code: Status, details: str) -> None:  # noqa: ARG002 (the interceptors' contract)
        """Add to the trailing metadata what there is to be added."""
        asked: _Asked | None = call.annotations.get(_ASKED)  # type: ignore[assignment]  # that is what the key is for
        if asked is None and code is self._ok and not self._report_always:
            return
        failed = code.name != "OK"
        if not failed:
            self._ok = code
        pairs: list[tuple[str, str | bytes]] = []
        if failed or (asked and asked.for_id):
            pairs.append((ID_METADATA, request_id.of(call.facts)))
        if asked and asked.for_stages is not None:
            durations_s = asked.totals.durations_s() or asked.for_stages.durations_s()
            total = ("total", call.ended_at - call.started_at)
            pairs.append((TIMING_METADATA, server_timing([*durations_s, total])))
        wants_load = self._report_always or (asked and asked.for_load)
        if wants_load and code.name != "UNAUTHENTICATED" and call.facts.principal != ANONYMOUS:
            pairs.append((LOAD_METADATA, self._load_report()))
        if pairs:
            call.add_trailing_metadata(pairs)

    def _ask(self, call: Call, key: str, value: str | bytes) -> None:
        annotations = call.annotations
        asked = annotations.setdefault(_ASKED, _Asked())
        assert isinstance(asked, _Asked)
        if key == ID_METADATA:
            asked.for_id = True
            call.facts.request_id = request_id.cleaned(str(value))
        elif key == LOAD_FORMAT_METADATA:
            asked.for_load = value == "bin"
        elif value == "1" and asked.for_stages is None:
            asked.for_stages = timing.wanted(annotations)
            listen_for_results(call, lambda _, result: asked.totals.add(result.stages))


@dataclass(slots=True)
class _Asked:
    """What a caller asked for. ``totals`` are of the requests of a stream, ``for_stages`` of a unary request."""

    for_id: bool = False
    for_load: bool = False
    for_stages: Stages | None = None
    totals: StageTotals = field(default_factory=StageTotals)
