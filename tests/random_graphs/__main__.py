"""Test inferd's verification with random graphs: ``python -m tests.random_graphs --seeds 0:200``."""

import argparse
import logging
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.random_graphs import RandomModel, Truth, make_graph, truth
from tests.random_graphs.verdict import inferd_batches


@dataclass(slots=True)
class Tally:
    """Results of all seeds."""

    counts: Counter[str] = field(default_factory=Counter)
    unsafe_but_proven: list[int] = field(default_factory=list)
    safe_but_unproven: list[int] = field(default_factory=list)

    def add(self, seed: int, model: RandomModel, found: Truth, *, proven: bool) -> None:
        """Count a graph."""
        kind = "safe" if found.safe else "unsafe"
        self.counts[kind] += 1
        self.counts[f"{kind}, proven"] += proven
        if not model.mixing:
            self.counts[f"{kind}, row-wise"] += 1
            self.counts[f"{kind}, row-wise, proven"] += proven
        if proven and not found.safe:
            self.unsafe_but_proven.append(seed)
        if found.safe and not proven:
            self.safe_but_unproven.append(seed)

    def summary(self) -> str:
        """Return the summary as text."""
        counts = self.counts
        total = counts["safe"] + counts["unsafe"]
        row_wise = counts["safe, row-wise"]
        row_wise_proven = _share(counts, "safe, row-wise, proven", row_wise)
        lines = [
            f"{total} graphs: {counts['safe']} safe ({_share(counts, 'safe', total)}), {counts['unsafe']} unsafe",
            f"proven of the safe: {_share(counts, 'safe, proven', counts['safe'])}",
            f"proven of the {row_wise} safe ones made of row-wise blocks only: {row_wise_proven}",
            f"safe but not proven: {self.safe_but_unproven}",
            f"UNSAFE BUT PROVEN ({len(self.unsafe_but_proven)}): {self.unsafe_but_proven}",
        ]
        return "\n".join(lines)


def _share(counts: Counter[str], kind: str, total: int) -> str:
    return f"{100 * counts[kind] / total:.1f} %" if total else "none"


def main() -> None:
    """Print the truth and inferd's verdict for each seed, and a summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.random_graphs", description=__doc__)
    parser.add_argument("--seeds", default="0:200", help="first:last, the last one left out (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="print only graphs on which inferd is wrong")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split(":"))
    logging.disable(logging.WARNING)
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(first, last):
            model = make_graph(seed)
            found = truth(model, seed)
            proven = inferd_batches(model, Path(folder))
            tally.add(seed, model, found, proven=proven)
            if not options.quiet or proven != found.safe:
                _say(_described(seed, model, found, proven=proven))
    _say(tally.summary())


def _described(seed: int, model: RandomModel, found: Truth, *, proven: bool) -> str:
    verdict = "safe  " if found.safe else "unsafe"
    said = "proven    " if proven else "not proven"
    hidden = "".join(f" [{block}: {way}]" for block, way in model.mixing.items() if way)
    wrong = "  WRONG" if proven and not found.safe else ""
    reason = f"\n       {found.reason}" if found.reason else ""
    return f"{seed:6} {verdict} {said}{wrong}  {'; '.join(model.recipe)}{hidden}{reason}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
