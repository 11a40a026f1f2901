"""Measure every scenario, and compare the figures with what they must be."""

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.simulation import bars, plots
from benchmarks.simulation.overload import SERVERS, Overload

#: Groups that take no arguments.
_SIMPLE = {
    "sharing": bars.sharing_bars,
    "models": bars.model_bars,
    "costs": bars.cost_bars,
    "instances": bars.instance_bars,
}
_FACTORS = (0.5, 1.0, 2.0, 4.0, 10.0)
_GROUPS = ("overload", "impossible", "spike", *_SIMPLE)


def main() -> None:
    """Measure what was chosen, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="of the spikes; a hundred take three minutes")
    parser.add_argument("--only", action="append", choices=_GROUPS, help="may be repeated; all if left out")
    parser.add_argument("--plots", action="store_true", help="only draw the charts of docs/overload.md")
    chosen = parser.parse_args()
    console = Console(width=150)
    if chosen.plots:
        for path in plots.draw():
            console.print(path)
        return
    groups = chosen.only or _GROUPS
    found: list[bars.Bar] = []
    if "overload" in groups:
        measured = bars.measure_overload("inferd", _FACTORS)
        for server in SERVERS[1:]:
            measured += bars.measure_overload(server, (2.0, 10.0))
        _show_overload(measured, console)
        found += bars.overload_bars([one for one in measured if one.server == "inferd"])
    if "impossible" in groups:
        found += bars.impossible_bars()
    if "spike" in groups:
        found += bars.spike_bars(bars.measure_spikes(chosen.seeds))
    for group, measure in _SIMPLE.items():
        if group in groups:
            found += measure()
    _show_bars(found, console)


def _show_overload(measured: Sequence[Overload], console: Console) -> None:
    table = Table("mix", "server", "load", "goodput", "admitted in time", "p50 ms", "p99 ms", "ends")
    for one in measured:
        ends = ", ".join(f"{name} {count}" for name, count in one.ends.items())
        figures = f"{one.goodput:.1%}", f"{one.admitted_in_time:.2%}", f"{one.p50_ms:.0f}", f"{one.p99_ms:.0f}"
        table.add_row(one.mix, one.server, f"{one.factor:g}x", *figures, ends)
    console.print(table)


def _show_bars(found: Sequence[bars.Bar], console: Console) -> None:
    table = Table("scenario", "measure", "figure", "bar", "holds")
    for one in found:
        table.add_row(one.scenario, one.measure, one.figure, one.bar, "yes" if one.holds else "[red]NO[/red]")
    console.print(table)
    console.print(f"{sum(one.holds for one in found)} of {len(found)} bars hold")


if __name__ == "__main__":
    main()
