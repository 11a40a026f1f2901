"""Offline jobs: `inferd batch` beside ONNX Runtime alone, Ray Data, padded batches and perf_analyzer, and its memory.

Each round runs all sides of a case one after another on the same cores; the result is the median of the rounds' ratios.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine, offline_data, options, perf_analyzer, report
from benchmarks.ceiling import ceiling_rows_per_s
from benchmarks.models import MODELS, ROOT
from benchmarks.offline_peers import OUTPUT
from benchmarks.process import Placement, Server, run_load
from benchmarks.servers import CONTENDERS
from benchmarks.serving import serving
from scripts import build_minilm

_MIB = 2**20
_SAMPLE_EVERY_S = 0.5
#: Threads of a run, actors and rows of a batch of the Ray pipeline: the best of these counts.
_RAY_SETTINGS = ((2, 1, 64), (2, 1, 256))
_PADDED_ROWS = (16, 32, 64)
_IN_FLIGHT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One side of a case in one round."""

    case: str
    round: int
    side: str
    rows_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """The resident set of a job and its workers while it runs, in MiB by seconds."""

    case: str
    rows: int
    seconds: float
    early_mib: float
    late_mib: float
    peak_mib: float
    rss_mib: dict[float, float] = field(repr=False)


def ceiling(rows: int) -> dict[str, float]:
    """``mid`` from Parquet: in this process, ONNX Runtime in a loop without files, and a Ray Data pipeline."""
    model, source = MODELS["mid"], offline_data.rows_of(MODELS["mid"], rows)
    alone = ceiling_rows_per_s(model, Placement.UNPINNED)
    ours = job(str(model.path), str(source))
    ray = max(rows / _peer("ray", model.path, source, *setting) for setting in _RAY_SETTINGS)
    return {"onnxruntime": alone, "inferd": ours["rows_per_s"], "inferd, whole job": _whole(ours), "ray": ray}


def lengths(rows: int) -> dict[str, float]:
    """MiniLM on texts of mixed lengths: grouped by length, and padded batches in the order of the file."""
    folder, source = build_minilm.build(), offline_data.texts(rows)
    tokenizer = f"{folder / 'tokenizer.json'},max_length=256"
    ours = job(str(folder), str(source), "--tokenize", tokenizer, "--output", OUTPUT)
    padded = max(rows / _peer("padded", folder, source, size) for size in _PADDED_ROWS)
    return {"padded": padded, "inferd": ours["rows_per_s"], "inferd, whole job": _whole(ours)}


def server(rows: int) -> dict[str, float]:
    """``mid`` on a live server: a job through it, and what perf_analyzer gets of it."""
    model, source = MODELS["mid"], offline_data.rows_of(MODELS["mid"], rows)
    with serving(CONTENDERS[report.OURS], model, Placement.UNPINNED, None) as at:
        theirs = perf_analyzer.measure(model, at.port, _IN_FLIGHT, Placement.UNPINNED, at.folder)
        ours = job(model.served_as, str(source), "--server", f"127.0.0.1:{at.port}")
    return {"perf_analyzer": theirs.requests_per_s, "inferd": ours["rows_per_s"]}


@dataclass(frozen=True, slots=True)
class Case:
    """Sides that are compared with the first of them, over so many rows."""

    run: Callable[[int], dict[str, float]]
    rows: int


_CASES = {"ceiling": Case(ceiling, 30_000), "lengths": Case(lengths, 4_000), "server": Case(server, 15_000)}


def job(model: str, source: str, *arguments: str) -> dict[str, Any]:
    """Run a job in a process of its own, and return its summary."""
    with TemporaryDirectory(dir=offline_data.FOLDER) as folder:
        command = [*_command(model, source, folder), *arguments]
        output = run_load(command, Placement.UNPINNED)
        summary = output.splitlines()[-1]
        found: dict[str, Any] = json.loads(summary) if summary.startswith("{") else {}
        if found.get("errors") != 0:
            raise RuntimeError(f"expected a summary without errors, got {output[-2000:]}")
        return found


def _command(model: str, source: str, folder: str) -> list[str]:
    return [sys.executable, "-m", "inferd", "batch", model, source, f"{folder}/answers", "--json"]


def _whole(summary: Mapping[str, Any]) -> float:
    """Return the rows per second with loading, counting and measuring."""
    return float(summary["rows"] / summary["elapsed_s"])


def _peer(kind: str, model: Path, source: Path, *numbers: int) -> float:
    """Return the seconds that another way of doing it takes."""
    with TemporaryDirectory(dir=offline_data.FOLDER) as folder:
        command = [sys.executable, "-m", "benchmarks.offline_peers", kind, str(model), str(source)]
        output = run_load([*command, f"{folder}/answers.parquet", *map(str, numbers)], Placement.UNPINNED)
        try:
            return float(output.split()[-1])
        except (IndexError, ValueError):
            raise RuntimeError(f"{kind} failed: {output[-2000:]}") from None


def small_rows(rows: int) -> Memory:
    """Return the memory of a job over many rows that take no time."""
    return _memory("small rows", rows, [str(offline_data.small_model()), str(offline_data.small_rows(rows))])


def pictures(count: int) -> Memory:
    """Return the memory of a job over a folder of pictures."""
    size = offline_data.PICTURE_SIZE
    arguments = [str(offline_data.picture_model()), str(offline_data.pictures(count)), "--image", f"size={size}"]
    return _memory("pictures", count, arguments)


def _memory(case: str, rows: int, arguments: Sequence[str]) -> Memory:
    with TemporaryDirectory(dir=offline_data.FOLDER) as name:
        folder = Path(name)
        model, source, *others = arguments
        began, samples = time.monotonic(), dict[float, float]()
        with Server([*_command(model, source, name), *others], {"PYTHONPATH": str(ROOT)}, folder) as process:
            while process.ended_with is None:
                samples[round(time.monotonic() - began, 1)] = process.rss_bytes() / _MIB
                time.sleep(_SAMPLE_EVERY_S)
            if process.ended_with:
                raise RuntimeError(f"{case} failed: {process.log}")
        seconds = time.monotonic() - began
    values = [*samples.values()]
    # Without the start, when the model is loaded and rows are counted, and without the end.
    early, late = (values[len(values) * first // 10 : len(values) * (first + 2) // 10] for first in (4, 7))
    return Memory(
        case=case,
        rows=rows,
        seconds=seconds,
        early_mib=median(early),
        late_mib=median(late),
        peak_mib=max(values),
        rss_mib=samples,
    )


def show(sides: Sequence[Side], memories: Sequence[Memory], console: Console) -> None:
    """Print the medians of all sides and of their ratios to the first, and the memory."""
    table = Table("case", "side", "rows/s", "min to max", "of the first")
    for case, name in dict.fromkeys((each.case, each.side) for each in sides):
        own = [each.rows_per_s for each in sides if (each.case, each.side) == (case, name)]
        first = [each for each in sides if each.case == case]
        base = [each.rows_per_s for each in first if each.side == first[0].side]
        ratio = median(mine / other for mine, other in zip(own, base, strict=True))
        table.add_row(case, name, f"{median(own):,.0f}", f"{min(own):,.0f} to {max(own):,.0f}", f"{ratio:.2f}")
    console.print(table)
    table = Table("memory", "rows", "seconds", "early MiB", "late MiB", "peak MiB", "growth")
    for each in memories:
        mib = (f"{value:,.0f}" for value in (each.early_mib, each.late_mib, each.peak_mib))
        growth = each.late_mib / each.early_mib - 1
        table.add_row(each.case, f"{each.rows:,}", f"{each.seconds:.0f}", *mib, f"{growth:+.1%}")
    console.print(table)


@contextmanager
def _scratch() -> Iterator[None]:
    """Context with the folder for outputs, on the disk of the inputs."""
    offline_data.FOLDER.mkdir(parents=True, exist_ok=True)
    yield
    for left in offline_data.FOLDER.glob("tmp*"):
        shutil.rmtree(left, ignore_errors=True)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "offline")
    names = [*_CASES, "small-rows", "pictures"]
    parser.add_argument("--case", action="append", choices=names, help="may be repeated; default all")
    parser.add_argument("--rows", type=int, help="of each case; default as many as take some ten seconds")
    options.add_rounds(parser)
    chosen = parser.parse_args()
    console, sides, memories = report.console(), list[Side](), list[Memory]()
    wanted = chosen.case or names
    with _scratch():
        for number in range(chosen.rounds):
            for name in filter(_CASES.__contains__, wanted):
                case = _CASES[name]
                found = case.run(chosen.rows or case.rows)
                console.print(name, {side: round(value) for side, value in found.items()})
                sides += [Side(case=name, round=number, side=side, rows_per_s=value) for side, value in found.items()]
        if "small-rows" in wanted:
            memories.append(small_rows(chosen.rows or 10_000_000))
        if "pictures" in wanted:
            memories += [pictures(1000), pictures(chosen.rows or 20_000)]
    show(sides, memories, console)
    measured = {"sides": [*map(asdict, sides)], "memory": [*map(asdict, memories)]}
    report.write_json(chosen.name, {"machine": machine.describe(), **measured}, console)


if __name__ == "__main__":
    main()
