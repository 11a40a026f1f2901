"""`inferd bench` and perf_analyzer at the same fixed rates, in turn: what each of them measures of the same server.

perf_analyzer counts latency from when a request was sent; `inferd bench` from when it was meant to be sent, and
from the send beside. Requests come evenly spaced: at random moments, the rates of short runs would differ by chance.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, perf_analyzer, report
from benchmarks.models import Model
from benchmarks.process import Placement, run_load
from benchmarks.servers import CONTENDERS, Contender
from benchmarks.serving import own_setting, serving

_CONTENDERS = ("inferd", "triton")
_RATES = (50.0, 100.0, 200.0)
_SECONDS = 4.5
_PERF_ANALYZER, _BENCH, _BENCH_FROM_SEND = "perf_analyzer", "inferd bench", "inferd bench, from the send"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What a generator measured in one round."""

    server: str
    model: str
    rate_per_s: float
    generator: str
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


def measure(contender: Contender, model: Model, rates: Sequence[float], rounds: int) -> Iterator[Measured]:
    """Measure at each rate with both generators, in alternating order."""
    placement = Placement.PINNED
    with serving(contender, model, placement, own_setting(contender, placement)) as at:
        for number in range(1, rounds + 1):
            for rate in rates:
                generators = [_by_perf_analyzer, _by_bench]
                for generator in generators if number % 2 else reversed(generators):
                    for name, requests_per_s, p50_ms, p99_ms in generator(model, at.port, rate, at.folder):
                        yield Measured(
                            server=contender.name,
                            model=model.name,
                            rate_per_s=rate,
                            generator=name,
                            round=number,
                            requests_per_s=requests_per_s,
                            p50_ms=p50_ms,
                            p99_ms=p99_ms,
                        )


def _by_perf_analyzer(model: Model, port: int, rate: float, folder: Path) -> list[tuple[str, float, float, float]]:
    result = perf_analyzer.measure_rate(model, port, rate, Placement.PINNED, folder, arrivals="constant")
    return [(_PERF_ANALYZER, result.requests_per_s, result.p50_ms, result.p99_ms)]


def _by_bench(model: Model, port: int, rate: float, folder: Path) -> list[tuple[str, float, float, float]]:
    written = folder / "bench.json"
    command = [sys.executable, "-m", "inferd", "bench", f"127.0.0.1:{port}", model.served_as, "--rate", f"{rate:g}"]
    command += ["--arrivals", "constant", "--duration", str(_SECONDS), "--warmup", "1", "--save", str(written)]
    output = run_load(command, Placement.PINNED)
    if not written.exists():
        msg = f"inferd bench failed: {output[-2000:]}"
        raise RuntimeError(msg)
    (step,) = json.loads(written.read_text())["steps"]
    written.unlink()
    return [
        (name, step["throughput_per_s"], step[latency]["p50"], step[latency]["p99"])
        for name, latency in ((_BENCH, "latency_ms"), (_BENCH_FROM_SEND, "latency_from_send_ms"))
    ]


def show(measured: Sequence[Measured], console: Console) -> None:
    """Print the medians of the rounds, and the medians of the ratios to perf_analyzer in the same round."""
    groups: dict[tuple[str, str, float, str], list[Measured]] = {}
    for one in measured:
        groups.setdefault((one.server, one.model, one.rate_per_s, one.generator), []).append(one)
    table = Table("server", "model", "asked/s", "generator", "done/s", "p50 ms", "p99 ms", "done", "p50", "p99")
    for server, model, rate, generator in sorted(groups):
        mine = groups[server, model, rate, generator]
        theirs = {one.round: _figures(one) for one in groups[server, model, rate, _PERF_ANALYZER]}
        medians = [median(column) for column in zip(*map(_figures, mine), strict=True)]
        ratios = [
            median(_figures(one)[column] / theirs[one.round][column] for one in mine if one.round in theirs)
            for column in range(len(medians))
        ]
        figures = [f"{medians[0]:.1f}", f"{medians[1]:.2f}", f"{medians[2]:.2f}"]
        table.add_row(server, model, f"{rate:g}", generator, *figures, *(f"{ratio:.3f}" for ratio in ratios))
    console.print(table)


def _figures(one: Measured) -> tuple[float, float, float]:
    return one.requests_per_s, one.p50_ms, one.p99_ms


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "generators")
    options.add_rounds(parser, rounds=5)
    parser.add_argument("--server", action="append", choices=_CONTENDERS, help="may be repeated; default both")
    parser.add_argument("--rate", action="append", type=float, help=f"may be repeated; default {_RATES}")
    chosen = parser.parse_args()
    console, measured = report.console(), list[Measured]()
    try:
        for name in chosen.server or _CONTENDERS:
            contender = CONTENDERS[name]
            if contender.missing:
                console.print(f"{contender.name}: {contender.missing}", style="red", markup=False)
                continue
            for model in options.models(chosen, ["mid"]):
                measured.extend(measure(contender, model, chosen.rate or _RATES, chosen.rounds))
    finally:
        show(measured, console)
        report.write_json(chosen.name, {"machine": machine.describe(), "measured": [*map(asdict, measured)]}, console)


if __name__ == "__main__":
    main()
