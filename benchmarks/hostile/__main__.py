"""What hostile callers do to a server: how long it is silent to others, and how much memory it takes."""

import argparse
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, report
from benchmarks.hostile import bars, corpus, long_runs, page, siege, tables, trial
from benchmarks.hostile.crowds import CROWDS
from benchmarks.hostile.long_runs import LongRun
from benchmarks.hostile.siege import Siege
from benchmarks.hostile.tables import Found
from benchmarks.hostile.trial import Size, Trial, Visit
from benchmarks.models import ROOT

_PARTS = ("messages", "crowds", "runs")
_SIZES = (Size(1), Size(6), Size(60), Size(6, gzip=True), Size(60, gzip=True))


def main() -> None:
    """Measure, print, and write the results down; exits with 1 if a bar was broken."""
    chosen = _options()
    if chosen.list:
        print(*(kind.name for kind in corpus.chosen(chosen.kind)), *CROWDS, sep="\n")
        return
    console, found = report.console(), Found()
    try:
        for one in _measured(chosen):
            if isinstance(one, Trial):
                found.trials.append(one)
                console.print(bars.line(one), markup=False, highlight=False)
            elif isinstance(one, Visit):
                found.visits.append(one)
            elif isinstance(one, Siege):
                found.sieges.append(one)
                console.print(one, markup=False, highlight=False)
            else:
                found.long_runs.append(one)
                console.print(one, markup=False, highlight=False)
    finally:
        tables.show(found, console)
        report.write_json(chosen.name, {"machine": machine.describe(), **asdict(found)}, console)
    if chosen.page:
        page.write(tables.markdown(found))
    sys.exit(not found.are_kept)


def _measured(chosen: argparse.Namespace) -> Iterator[Trial | Siege | LongRun | Visit]:
    tree, environment = chosen.tree.resolve(), dict(chosen.set or [])
    parts = chosen.part or _PARTS
    if "messages" in parts:
        kinds = list(corpus.chosen(chosen.kind))
        yield from trial.run(tree, environment, kinds, chosen.size or _SIZES, bars.worst)
    if "crowds" in parts:
        yield from siege.run(tree, environment, [*CROWDS])
    if "runs" in parts:
        yield from long_runs.run(tree, environment)


def _options() -> argparse.Namespace:
    # Ended from outside, a measurement must still end the server that it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--part", action="append", choices=_PARTS, help="may be repeated; all if left out")
    add("--kind", action="append", help="part of the names of kinds of messages; may be repeated; all if left out")
    add("--size", action="append", type=_size, help="of messages: 1, 6gzip and the like, in MB; may be repeated")
    add("--tree", type=Path, default=ROOT, help="where the server's code is; default this tree")
    add("--set", action="append", type=_setting, help="NAME=VALUE for the server's environment; may be repeated")
    add("--list", action="store_true", help="only print the names of kinds and crowds")
    add("--name", default="hostile", help="results are written to benchmarks/results/NAME.json; default hostile")
    add("--page", action="store_true", help="write the tables into docs/robustness.md, too")
    return parser.parse_args()


def _size(text: str) -> Size:
    return Size(int(text.removesuffix("gzip")), gzip=text.endswith("gzip"))


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    main()
