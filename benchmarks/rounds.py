"""Measures servers in turn: each round visits all of them, so that noise of the machine affects all alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from benchmarks.ceiling import ceiling_rows_per_s
from benchmarks.models import Model
from benchmarks.process import Meter, Placement
from benchmarks.servers import Contender, Setting
from benchmarks.serving import serving

CONCURRENCIES = (1, 16, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measurement of one server.

    ``server_cpu_us`` is per request; it and ``server_rss_mib`` include all processes of the server.
    """

    model: str
    placement: str
    concurrency: int
    server: str
    setting: str
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    server_cpu_us: float
    server_rss_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ceiling:
    """Throughput of the model alone in one round."""

    model: str
    placement: str
    round: int
    rows_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A server that could not be measured, with the reason."""

    model: str
    placement: str
    server: str
    setting: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to measure. No ``settings``: see `settings_for`; one that is None stands for the server's own defaults."""

    contenders: Sequence[Contender]
    models: Sequence[Model]
    settings: Sequence[Setting | None]
    placements: Sequence[Placement]
    concurrencies: Sequence[int]
    rounds: int

    def settings_for(self, model: Model, placement: Placement) -> Sequence[Setting | None]:
        """Return the given settings, or else one core, or all cores by threads and by instances."""
        cores = placement.server_cores
        if self.settings:
            return self.settings
        if cores == 1 or not model.threads:
            return (Setting(1, 1),)
        return (Setting(cores, 1), Setting(1, cores))


@dataclass(frozen=True, slots=True)
class Outcome:
    """All results so far."""

    samples: list[Sample] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Visit:
    round: int
    model: Model
    placement: Placement
    setting: Setting | None
    contender: Contender

    @property
    def name(self) -> str:
        return str(self.setting or "default")


def measure(plan: Plan, console: Console, outcome: Outcome) -> None:
    """Measure all rounds and add to ``outcome``. A server that fails is skipped from then on."""
    broken: set[tuple[object, ...]] = set()
    for number in range(1, plan.rounds + 1):
        for model in plan.models:
            for placement in plan.placements:
                rows_per_s = ceiling_rows_per_s(model, placement)
                outcome.ceilings.append(
                    Ceiling(model=model.name, placement=placement, round=number, rows_per_s=rows_per_s)
                )
                for visit in _visits(plan, number, model, placement):
                    key = (visit.contender.name, model.name, placement, visit.setting)
                    if key not in broken and not _try(visit, plan.concurrencies, console, outcome):
                        broken.add(key)


def _visits(plan: Plan, number: int, model: Model, placement: Placement) -> Iterator[_Visit]:
    for setting in plan.settings_for(model, placement):
        # In alternating order, so that none is always measured after the same other.
        for contender in plan.contenders if number % 2 else reversed(plan.contenders):
            if contender.wire.takes(model):
                yield _Visit(round=number, model=model, placement=placement, setting=setting, contender=contender)


def _try(visit: _Visit, concurrencies: Sequence[int], console: Console, outcome: Outcome) -> bool:
    try:
        for sample in _visit(visit, concurrencies):
            outcome.samples.append(sample)
            console.print(
                f"round {sample.round}  {sample.model}  {sample.placement}  {sample.server} {sample.setting}  "
                f"{sample.concurrency} in flight: {sample.requests_per_s:,.0f}/s, p99 {sample.p99_ms:.2f} ms",
                highlight=False,
            )
    except Exception as error:  # noqa: BLE001  # Whatever breaks one server must not lose what the others did.
        failure = Failure(
            model=visit.model.name,
            placement=visit.placement,
            server=visit.contender.name,
            setting=visit.name,
            reason=f"{type(error).__name__}: {error}",
        )
        outcome.failures.append(failure)
        console.print(f"{failure.server} on {failure.model}: {failure.reason}", style="red", markup=False)
        return False
    return True


def _visit(visit: _Visit, concurrencies: Sequence[int]) -> Iterator[Sample]:
    """Start the server, check its answers, measure it at each concurrency, stop it."""
    if visit.contender.missing:
        raise RuntimeError(visit.contender.missing)
    model, placement = visit.model, visit.placement
    with serving(visit.contender, model, placement, visit.setting) as at:
        for concurrency in concurrencies:
            with Meter(at.server) as meter:
                result = visit.contender.wire.load(model, at.port, concurrency, placement, at.folder)
            yield Sample(
                model=model.name,
                placement=placement,
                concurrency=concurrency,
                server=visit.contender.name,
                setting=visit.name,
                round=visit.round,
                requests_per_s=result.requests_per_s,
                p50_ms=result.p50_ms,
                p99_ms=result.p99_ms,
                errors=result.errors,
                server_cpu_us=meter.cores_used / max(result.requests_per_s, 1e-9) * 1e6,
                server_rss_mib=at.server.rss_bytes() / 2**20,
            )
