"""Effects of hostile callers on a server: how long others get no answer, and how much memory it takes."""

import argparse
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, report
from benchmarks.hostile import corpus, crowd_trial, limits, long_runs, page, tables, trial
from benchmarks.hostile.crowd_trial import CrowdTrial
from benchmarks.hostile.crowds import CROWDS
from benchmarks.hostile.long_runs import LongRun
from benchmarks.hostile.tables import Found
from benchmarks.hostile.trial import Size, Trial, Visit
from benchmarks.models import ROOT

_PARTS = ("messages", "crowds", "runs")
_SIZES = (Size(1), Size(6), Size(60), Size(6, gzip=True), Size(60, gzip=True))


def main() -> None:
    """Measure, print, and write the results. Exits with 1 if a limit was exceeded."""
    chosen = _options()
    if chosen.list:
        print(*(kind.name for kind in corpus.chosen(chosen.kind)), *CROWDS, sep="\n")
        return
    console, found = report.console(), Found()
    try:
        for one in _measured(chosen):
            if isinstance(one, Trial):
                found.trials.append(one)
                console.print(limits.line(one), markup=False, highlight=False)
            elif isinstance(one, Visit):
                found.visits.append(one)
            elif isinstance(one, CrowdTrial):
                found.crowds.append(one)
                console.print(one, markup=False, highlight=False)
            else:
                found.long_runs.append(one)
                console.print(one, markup=False, highlight=False)
    finally:
        tables.show(found, console)
        report.write_json(chosen.name, {"machine": machine.describe(), **asdict(found)}, console)
    if chosen.page:
        page.write(tables.markdown(found))
    sys.exit(not found.are_within_limits)


def _measured(chosen: argparse.Namespace) -> Iterator[Trial | CrowdTrial | LongRun | Visit]:
    tree, environment = chosen.tree.resolve(), dict(chosen.set or [])
    parts = chosen.part or _PARTS
    if "messages" in parts:
        kinds = list(corpus.chosen(chosen.kind))
        yield from trial.run(tree, environment, kinds, chosen.size or _SIZES, limits.worst)
    if "crowds" in parts:
        yield from crowd_trial.run(tree, environment, [*CROWDS])
    if "runs" in parts:
        yield from long_runs.run(tree, environment)


def _options() -> argparse.Namespace:
    # On SIGTERM too, the server must be stopped.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--part", action="append", choices=_PARTS, help="may be repeated; default all")
    add("--kind", action="append", help="part of the name of a kind of message; may be repeated; default all")
    add("--size", action="append", type=_size, help="of messages: 1, 6gzip and the like, in MB; may be repeated")
    add("--tree", type=Path, default=ROOT, help="tree with the server's code; default this one")
    add("--set", action="append", type=_setting, help="NAME=VALUE for the server's environment; may be repeated")
    add("--list", action="store_true", help="only print the names of kinds and crowds")
    add("--name", default="hostile", help="results are written to benchmarks/results/NAME.json; default hostile")
    add("--page", action="store_true", help="also write the tables to docs/robustness.md")
    return parser.parse_args()


def _size(text: str) -> Size:
    return Size(int(text.removesuffix("gzip")), gzip=text.endswith("gzip"))


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    main()
