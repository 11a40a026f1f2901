"""Latency at fixed rates: calls arrive at random times, at shares of the slowest server's capacity.

All servers get the same rates, so that their latencies can be compared. The capacity is that of a closed loop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, perf_analyzer, report
from benchmarks.models import Model
from benchmarks.process import Placement
from benchmarks.servers import CONTENDERS, Contender
from benchmarks.serving import own_setting, serving

_CONTENDERS = ("inferd", "triton")
_SHARES = (0.25, 0.5, 0.75)
_CONCURRENCY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """One rate on one server. It did not keep up if ``requests_per_s`` is less than ``asked_per_s``."""

    server: str
    model: str
    placement: str
    round: int
    capacity_per_s: float
    share: float
    asked_per_s: float
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def measure(contenders: Sequence[Contender], model: Model, placement: Placement, number: int) -> Iterator[Rate]:
    """Measure the capacity of each, and then each at the same rates."""
    capacities = {}
    for contender in contenders:
        with serving(contender, model, placement, own_setting(contender, placement)) as at:
            closed = perf_analyzer.measure(model, at.port, _CONCURRENCY, placement, at.folder)
            capacities[contender.name] = closed.requests_per_s
    for contender in contenders:
        with serving(contender, model, placement, own_setting(contender, placement)) as at:
            for share in _SHARES:
                asked = share * min(capacities.values())
                result = perf_analyzer.measure_rate(model, at.port, asked, placement, at.folder)
                yield Rate(
                    server=contender.name,
                    model=model.name,
                    placement=placement,
                    round=number,
                    capacity_per_s=capacities[contender.name],
                    share=share,
                    asked_per_s=asked,
                    requests_per_s=result.requests_per_s,
                    p50_ms=result.p50_ms,
                    p99_ms=result.p99_ms,
                )


def show(measured: Sequence[Rate], console: Console) -> None:
    """Print the medians of the rounds, with the servers side by side."""
    groups: dict[tuple[str, str, float, str], list[Rate]] = {}
    for one in measured:
        groups.setdefault((one.model, one.placement, one.share, one.server), []).append(one)
    table = Table("model", "placement", "share", "server", "its capacity/s", "asked/s", "done/s", "p50 ms", "p99 ms")
    for model, placement, share, server in sorted(groups):
        cells = _medians(groups[model, placement, share, server])
        table.add_row(model, placement, f"{share:.0%}", server, *cells)
    console.print(table)


def _medians(group: Sequence[Rate]) -> list[str]:
    def middle(of: Callable[[Rate], float]) -> float:
        return median(map(of, group))

    return [
        f"{middle(lambda one: one.capacity_per_s):,.0f}",
        f"{middle(lambda one: one.asked_per_s):,.0f}",
        f"{middle(lambda one: one.requests_per_s):,.0f}",
        f"{middle(lambda one: one.p50_ms):.2f}",
        f"{middle(lambda one: one.p99_ms):.2f}",
    ]


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "rates")
    options.add_placement_and_rounds(parser)
    parser.add_argument("--server", action="append", choices=_CONTENDERS, help="may be repeated; default both")
    chosen = parser.parse_args()
    console, measured = report.console(), list[Rate]()
    found = [CONTENDERS[name] for name in chosen.server or _CONTENDERS]
    for contender in found:
        if contender.missing:
            console.print(f"{contender.name}: {contender.missing}", style="red", markup=False)
    contenders = [contender for contender in found if not contender.missing]
    try:
        for number in range(1, chosen.rounds + 1):
            for model in options.models(chosen, ["small"]):
                for placement in options.placements(chosen):
                    measured.extend(measure(contenders, model, placement, number))
    finally:
        show(measured, console)
        report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


if __name__ == "__main__":
    main()
