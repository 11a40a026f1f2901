"""Throughput on a GPU with and without batching, compared with the model in process on the same GPU.

Without a GPU, the CPU is measured, and the results say so.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median

import onnxruntime
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.ceiling import ceiling_rows_per_s
from benchmarks.models import Model
from benchmarks.process import Placement
from benchmarks.servers import CONTENDERS, by_grpcload
from benchmarks.serving import serving
from inferd.runtime import providers

_MODELS = ("minilm16", "minilm16-fp16", "cnn")
_CONCURRENCIES = (64, 128)
#: Tolerance against the CPU's answers, because a GPU multiplies FP32 with less precision.
_GPU_TOLERANCE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """One measurement. ``of_ceiling`` is throughput relative to the model in process at its best batch size."""

    model: str
    device: str
    batching: bool
    concurrency: int
    round: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int
    ceiling_rows_per_s: float
    of_ceiling: float


def gpu_name() -> str | None:
    """Return the name of the GPU that ONNX Runtime can use, or None."""
    if providers.CUDA not in onnxruntime.get_available_providers() or shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


def measure(model: Model, concurrencies: Sequence[int], number: int) -> Iterator[Served]:
    """Measure the ceiling, then a server with batching and one without."""
    gpu, placement = gpu_name(), Placement.UNPINNED
    ceiling = ceiling_rows_per_s(model, placement, cuda=gpu is not None)
    # Without batching, the model is announced without a batch axis, and perf_analyzer would need other requests.
    contender = by_grpcload(CONTENDERS[report.OURS])
    for batching in (True, False):
        # By name, so that a server that cannot use the GPU fails.
        environment = {"INFERD_RUNTIME__PROVIDERS": '["cuda"]' if gpu else '["cpu"]'}
        environment["INFERD_BATCHING__ENABLED"] = str(batching).lower()
        checked = replace(model, tolerance=max(model.tolerance, _GPU_TOLERANCE)) if gpu else model
        with serving(contender, checked, placement, None, environment=environment) as at:
            for concurrency in concurrencies:
                result = contender.wire.load(model, at.port, concurrency, placement, at.folder)
                yield Served(
                    model=model.name,
                    device=gpu or f"CPU, {len(os.sched_getaffinity(0))} cores",
                    batching=batching,
                    concurrency=concurrency,
                    round=number,
                    requests_per_s=result.requests_per_s,
                    p50_ms=result.p50_ms,
                    p99_ms=result.p99_ms,
                    errors=result.errors,
                    ceiling_rows_per_s=ceiling,
                    of_ceiling=result.requests_per_s / ceiling,
                )


def show(measured: Sequence[Served], console: Console) -> None:
    """Print the medians of the rounds."""
    groups: dict[tuple[str, str, int], list[Served]] = {}
    for one in measured:
        groups.setdefault((one.model, one.device, one.concurrency), []).append(one)
    table = Table(
        "model", "device", "in flight", "ceiling rows/s", "batching on /s", "of ceiling", "p99 ms", "batching off /s",
        "p99 ms", "on / off",
    )  # fmt: skip
    for (model, device, concurrency), group in groups.items():
        table.add_row(model, device, str(concurrency), *_cells(group))
    console.print(table)


def _cells(group: Sequence[Served]) -> list[str]:
    def middle(of: Callable[[Served], float], *, batching: bool) -> float:
        chosen = [of(one) for one in group if one.batching is batching]
        return median(chosen) if chosen else float("nan")

    on = middle(lambda one: one.requests_per_s, batching=True)
    off = middle(lambda one: one.requests_per_s, batching=False)
    return [
        f"{middle(lambda one: one.ceiling_rows_per_s, batching=True):,.0f}",
        f"{on:,.0f}",
        f"{middle(lambda one: one.of_ceiling, batching=True):.0%}",
        f"{middle(lambda one: one.p99_ms, batching=True):.1f}",
        f"{off:,.0f}",
        f"{middle(lambda one: one.p99_ms, batching=False):.1f}",
        f"{on / off:.1f}",
    ]


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "gpu")
    options.add_concurrency(parser, default=_CONCURRENCIES)
    options.add_rounds(parser)
    chosen = parser.parse_args()
    console, measured, gpu = report.console(), list[Served](), gpu_name()
    console.print(f"device: {gpu}" if gpu else "no GPU that ONNX Runtime can use: measured on the CPU", highlight=False)
    try:
        for number in range(1, chosen.rounds + 1):
            for model in options.models(chosen, _MODELS):
                measured.extend(measure(model, chosen.concurrency or _CONCURRENCIES, number))
    finally:
        show(measured, console)
        content = {"machine": machine.describe(), "gpu": gpu, "measured": [*map(asdict, measured)]}
        report.write_json(chosen.name, content, console)


if __name__ == "__main__":
    main()
