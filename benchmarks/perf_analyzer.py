"""Load over the Open Inference Protocol by perf_analyzer, Triton's load generator in C++."""

import base64
import csv
import json
import os
from pathlib import Path

from benchmarks.models import ROOT, Model
from benchmarks.process import Placement, Result, run_load

FOLDER = ROOT / ".venv" / "perf_analyzer"
_WINDOWS = 3
_SECONDS = 4.5


def write_requests(model: Model, path: Path) -> Path:
    """Write the model's requests in perf_analyzer's format, and return the path."""
    rows = [
        {
            name: {"content": {"b64": base64.b64encode(array.tobytes()).decode()}, "shape": list(array.shape)}
            for name, array in row.items()
        }
        for row in model.rows()
    ]
    path.write_text(json.dumps({"data": rows}))
    return path


def measure(
    model: Model,
    port: int,
    concurrency: int,
    placement: Placement,
    folder: Path,
    *,
    streaming: bool = False,
    seconds: float = _SECONDS,
) -> Result:
    """Keep ``concurrency`` calls in flight for the duration."""
    load = ["--concurrency-range", str(concurrency), *(["--streaming"] if streaming else [])]
    return _run(model, port, load, placement, folder, seconds)


def measure_rate(
    model: Model, port: int, requests_per_s: float, placement: Placement, folder: Path, *, arrivals: str = "poisson"
) -> Result:
    """Start unary calls at a fixed rate, at random moments or evenly spaced ("constant"), whatever comes back."""
    load = ["--request-rate-range", f"{requests_per_s:.0f}", "--request-distribution", arrivals]
    return _run(model, port, load, placement, folder, _SECONDS)


def _run(model: Model, port: int, load: list[str], placement: Placement, folder: Path, seconds: float) -> Result:
    report = folder / "perf_analyzer.csv"
    report.unlink(missing_ok=True)
    requests = write_requests(model, folder / f"{model.name}.json")
    command = [str(FOLDER / "perf_analyzer"), "-m", model.served_as, "-u", f"127.0.0.1:{port}", "-i", "grpc", "-a"]
    # A stability limit that is always met, so that all windows are measured and averaged.
    command += ["-s", "999", "-r", str(_WINDOWS), "-p", str(round(seconds * 1000 / _WINDOWS)), "--max-threads", "4"]
    command += [*load, "--input-data", str(requests), "-f", str(report)]
    output = run_load(command, placement, {**os.environ, "LD_LIBRARY_PATH": str(FOLDER)})
    if not report.exists():
        msg = f"perf_analyzer failed: {output[-2000:]}"
        raise RuntimeError(msg)
    with report.open() as file:
        row = next(iter(csv.DictReader(file)))
    return Result(
        requests_per_s=float(row["Inferences/Second"]),
        p50_ms=float(row["p50 latency"]) / 1000,
        p99_ms=float(row["p99 latency"]) / 1000,
    )
