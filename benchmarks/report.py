"""Results as a table, a JSON file and charts."""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Column, Table

from benchmarks import charts, machine
from benchmarks.rounds import Outcome, Plan, Sample, measure

RESULTS = Path(__file__).resolve().parent / "results"
#: The server that the others are compared with.
OURS = "inferd"
_WIDTH = 150


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One server at one point: the medians of the rounds, and the range of the throughput."""

    model: str
    placement: str
    concurrency: int
    server: str
    setting: str
    rounds: int
    requests_per_s: float
    slowest: float
    fastest: float
    p50_ms: float
    p99_ms: float
    errors: int
    server_cpu_us: float
    server_rss_mib: float
    of_ceiling: float
    #: Throughput of inferd relative to this server's; None if inferd was not measured.
    ours_over_it: float | None


def console() -> Console:
    """Return a console that is wide enough for the table if the output is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=_WIDTH)


def measured(plan: Plan, name: str) -> None:
    """Measure according to ``plan``, and write the results, also after an interruption."""
    progress, outcome = console(), Outcome()
    try:
        measure(plan, progress, outcome)
    finally:
        write(name, outcome, progress)


def summarise(outcome: Outcome) -> list[Line]:
    """Return the medians of each server with its best settings, for each point."""
    ceilings = defaultdict(list)
    for ceiling in outcome.ceilings:
        ceilings[ceiling.model, ceiling.placement].append(ceiling.rows_per_s)
    points: dict[tuple[str, str, int], dict[str, dict[str, list[Sample]]]] = {}
    for sample in outcome.samples:
        servers = points.setdefault((sample.model, sample.placement, sample.concurrency), {})
        servers.setdefault(sample.server, {}).setdefault(sample.setting, []).append(sample)
    lines = []
    for (model, placement, _), servers in points.items():
        best = {name: max(settings.values(), key=_throughput) for name, settings in servers.items()}
        ours = _throughput(best[OURS]) if OURS in best else None
        ceiling_rows_per_s = median(ceilings[model, placement])
        lines += [_line(samples, ceiling_rows_per_s, ours) for samples in best.values()]
    return lines


def _line(samples: Sequence[Sample], ceiling_rows_per_s: float, ours: float | None) -> Line:
    def middle(of: Callable[[Sample], float]) -> float:
        return median(map(of, samples))

    first, speeds = samples[0], [sample.requests_per_s for sample in samples]
    return Line(
        model=first.model,
        placement=first.placement,
        concurrency=first.concurrency,
        server=first.server,
        setting=first.setting,
        rounds=len(samples),
        requests_per_s=median(speeds),
        slowest=min(speeds),
        fastest=max(speeds),
        p50_ms=middle(lambda sample: sample.p50_ms),
        p99_ms=middle(lambda sample: sample.p99_ms),
        errors=sum(sample.errors for sample in samples),
        server_cpu_us=middle(lambda sample: sample.server_cpu_us),
        server_rss_mib=middle(lambda sample: sample.server_rss_mib),
        of_ceiling=median(speeds) / ceiling_rows_per_s,
        ours_over_it=ours and ours / median(speeds),
    )


def _throughput(samples: Sequence[Sample]) -> float:
    return median(sample.requests_per_s for sample in samples)


def show(lines: Sequence[Line], outcome: Outcome, console: Console) -> None:
    """Print all points, each with its servers, fastest first, and the servers that could not be measured."""
    numbers = ["requests/s", "min to max", "inferd / it", "p50 ms", "p99 ms", "CPU µs", "RSS MiB", "of ceiling"]
    right = [Column(name, justify="right", no_wrap=True) for name in numbers]
    left = [Column(name, no_wrap=True) for name in ("model, placement, in flight", "server")]
    table = Table(*left, "threads x runs", *right)
    order = sorted(lines, key=lambda line: (line.model, line.placement, line.concurrency, -line.requests_per_s))
    for line, following in zip_longest(order, order[1:]):
        table.add_row(
            f"{line.model}, {line.placement}, {line.concurrency}",
            line.server + (f" ({line.errors} errors)" if line.errors else ""),
            line.setting,
            f"{line.requests_per_s:,.0f}",
            f"{line.slowest:,.0f} to {line.fastest:,.0f}",
            f"{line.ours_over_it:.2f}" if line.ours_over_it else "",
            f"{line.p50_ms:.2f}",
            f"{line.p99_ms:.2f}",
            f"{line.server_cpu_us:,.0f}",
            f"{line.server_rss_mib:,.0f}",
            f"{line.of_ceiling:.1%}",
            end_section=following is None or following.concurrency != line.concurrency,
        )
    console.print(table)
    for failure in outcome.failures:
        text = f"not measured: {failure.server} ({failure.setting}) on {failure.model}, {failure.placement}: "
        first, *others = failure.reason.strip().splitlines()
        console.print(text + first, *others[-1:], style="red", markup=False)


def write(name: str, outcome: Outcome, console: Console) -> None:
    """Print the table, and write ``results/NAME.json`` and a chart for each model and placement."""
    lines = summarise(outcome)
    show(lines, outcome, console)
    medians = [asdict(line) for line in lines]
    write_json(name, {"machine": machine.describe(), "medians": medians, **asdict(outcome)}, console)
    for model, placement in dict.fromkeys((line.model, line.placement) for line in lines):
        chosen = [line for line in lines if (line.model, line.placement) == (model, placement)]
        charts.draw(RESULTS / f"{name}-{model}-{placement}.png", f"{model}, {placement}", chosen)


def write_json(name: str, content: Mapping[str, object], console: Console) -> None:
    """Write ``results/NAME.json`` and print its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    console.print(f"written: {path}")
