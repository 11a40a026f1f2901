"""Processor time per request with the code of another tree and of this one, measured in turn.

Each round starts both, so that noise of the machine affects both alike; the result is the median of the rounds' ratios.
A tree measured against itself shows the precision.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.process import Placement
from benchmarks.rounds import Outcome, Plan, Sample, measure
from benchmarks.servers import CONTENDERS, Contender, launch_tree
from benchmarks.wires import OpenInferenceByGrpcload

#: The contenders of a pair.
NEW, OLD = "inferd", "inferd-old"
_ROUNDS = 9
_IN_FLIGHT = 64
_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Processor time per request in one round, of all processes of the server."""

    model: str
    placement: str
    concurrency: int
    round: int
    old_cpu_us: float
    new_cpu_us: float

    @property
    def ratio(self) -> float:
        """New relative to old."""
        return self.new_cpu_us / self.old_cpu_us


def pairs(samples: Sequence[Sample]) -> list[Pair]:
    """Return the measurements of both trees in the same round."""
    found: dict[tuple[str, str, int, int], dict[str, Sample]] = defaultdict(dict)
    for sample in samples:
        found[sample.model, sample.placement, sample.concurrency, sample.round][sample.server] = sample
    return [
        Pair(
            model=model,
            placement=placement,
            concurrency=concurrency,
            round=number,
            old_cpu_us=by_server[OLD].server_cpu_us,
            new_cpu_us=by_server[NEW].server_cpu_us,
        )
        for (model, placement, concurrency, number), by_server in found.items()
        if len(by_server) == 2
    ]


def show(found: Sequence[Pair], console: Console) -> None:
    """Print every pair, and the median of the ratios of each model, placement and concurrency."""
    table = Table("model, placement, in flight", "round", "old CPU µs", "new CPU µs", "new / old")
    groups: dict[tuple[str, str, int], list[Pair]] = defaultdict(list)
    for pair in found:
        groups[pair.model, pair.placement, pair.concurrency].append(pair)
    for (model, placement, concurrency), members in groups.items():
        name = f"{model}, {placement}, {concurrency}"
        for pair in members:
            costs = (f"{pair.old_cpu_us:,.1f}", f"{pair.new_cpu_us:,.1f}", f"{pair.ratio:.3f}")
            table.add_row(name, str(pair.round), *costs)
        middle = median(pair.ratio for pair in members)
        table.add_row(name, "median", "", "", f"{middle:.3f}", end_section=True)
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "trees")
    options.add_placement_and_rounds(parser, rounds=_ROUNDS)
    options.add_concurrency(parser, default=(_IN_FLIGHT,))
    parser.add_argument("--old", type=Path, required=True, help="the other tree: a checkout of an earlier commit")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help=f"of load in a round; default {_SECONDS:g}")
    chosen = parser.parse_args()
    wire = OpenInferenceByGrpcload(seconds=chosen.seconds)
    needs = CONTENDERS[NEW].needs
    old = Contender(name=OLD, wire=wire, launch=partial(launch_tree, chosen.old.resolve()), needs=needs)
    new = Contender(name=NEW, wire=wire, launch=CONTENDERS[NEW].launch, needs=needs)
    plan = Plan(
        contenders=[old, new],
        models=options.models(chosen, ["small"]),
        settings=[None],
        placements=options.placements(chosen) if chosen.placement else [Placement.PINNED],
        concurrencies=chosen.concurrency or [_IN_FLIGHT],
        rounds=chosen.rounds,
    )
    console, outcome = report.console(), Outcome()
    try:
        measure(plan, console, outcome)
    finally:
        found = pairs(outcome.samples)
        show(found, console)
        content = {"machine": machine.describe(), "pairs": [*map(asdict, found)], **asdict(outcome)}
        report.write_json(chosen.name, content, console)


if __name__ == "__main__":
    main()
