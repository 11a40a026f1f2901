"""What hostile messages do to a server: how long it is silent to others, and how much memory it takes."""

import argparse
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, report
from benchmarks.hostile import bars, corpus, trial
from benchmarks.hostile.trial import Size, Trial, Visit
from benchmarks.models import ROOT

_SIZES = (Size(1), Size(6), Size(60), Size(6, gzip=True), Size(60, gzip=True))


def main() -> None:
    """Send, print, and write the results down; exits with 1 if a bar was broken."""
    chosen = _options()
    console = report.console()
    kinds = list(corpus.chosen(chosen.kind))
    if chosen.list:
        for kind in kinds:
            print(kind.name)
        return
    trials: list[Trial] = []
    visits: list[Visit] = []
    try:
        for one in trial.run(chosen.tree, dict(chosen.set or []), kinds, chosen.size or _SIZES, bars.is_kept):
            if isinstance(one, Visit):
                visits.append(one)
            else:
                trials.append(one)
                console.print(bars.line(one), markup=False, highlight=False)
    finally:
        bars.show(trials, visits, console)
        content = {
            "machine": machine.describe(), "trials": [*map(asdict, trials)], "visits": [*map(asdict, visits)],
        }  # fmt: skip
        report.write_json(chosen.name, content, console)
    sys.exit(bool(bars.broken(trials)) or len(visits) != 1)


def _options() -> argparse.Namespace:
    # Ended from outside, a measurement must still end the server that it has started.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--kind", action="append", help="part of the names of kinds; may be repeated; all if left out")
    add("--size", action="append", type=_size, help="1, 6gzip and the like, in MB; may be repeated")
    add("--tree", type=Path, default=ROOT, help="where the server's code is; default this tree")
    add("--set", action="append", type=_setting, help="NAME=VALUE for the server's environment; may be repeated")
    add("--list", action="store_true", help="only print the names of the kinds")
    add("--name", default="hostile", help="results are written to benchmarks/results/NAME.json; default hostile")
    return parser.parse_args()


def _size(text: str) -> Size:
    return Size(int(text.removesuffix("gzip")), gzip=text.endswith("gzip"))


def _setting(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


if __name__ == "__main__":
    main()
