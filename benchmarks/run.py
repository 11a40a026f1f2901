"""Measure a running server with perf_analyzer, beside what the model alone can do in one process.

For each model: the raw ceiling (rows per second of ONNX Runtime at the best batch size, called in a loop), then
requests of one row at several concurrencies over unary ModelInfer and ModelStreamInfer. Writes a table, and a JSON file
under ``benchmarks/results/``. Client and server share the cores, as they are.
"""

import argparse
import csv
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Column, Table

from benchmarks.models import MLPS, write_mlp

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".venv" / "perf_analyzer"
CONCURRENCIES = (1, 16, 64, 128)
CEILING_BATCH_SIZES = (1, 8, 32, 64, 128)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One measured point. Throughput in requests of one row per second; latencies in milliseconds."""

    model: str
    method: str
    concurrency: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    ceiling_rows_per_s: float


def ceiling_rows_per_s(path: Path, columns: int, threads: int) -> float:
    """Return the best rows per second of plain ONNX Runtime over a few batch sizes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    best = 0.0
    for rows in CEILING_BATCH_SIZES:
        inputs = {"x": np.zeros((rows, columns), np.float32)}
        runs, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < 0.5:
            session.run(None, inputs)
            runs += 1
        best = max(best, rows * runs / elapsed)
    return best


def measure(
    model: str, columns: int, port: int, concurrency: int, *, streaming: bool, report: Path
) -> dict[str, float]:
    """Run perf_analyzer once and return the row of its report."""
    command = [str(TOOLS / "perf_analyzer"), "-m", model, "-u", f"127.0.0.1:{port}", "-i", "grpc", "-a"]
    command += ["--concurrency-range", str(concurrency), "-p", "2000", "-s", "999", "-r", "3", "--max-threads", "4"]
    command += ["--shape", f"x:{columns}", "-f", str(report), *(["--streaming"] if streaming else [])]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(TOOLS)}
    # A stability limit that is never missed: three windows are always measured and averaged.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    if not report.exists():
        raise SystemExit(f"perf_analyzer failed:\n{done.stdout}{done.stderr}")
    with report.open() as file:
        row = next(iter(csv.DictReader(file)))
    return {name: float(value) for name, value in row.items() if value and re.fullmatch(r"[0-9.]+", value)}


def start_server(repository: Path, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server on free ports with its default settings; returns it and its gRPC port once it is ready."""
    command = [str(ROOT / ".venv/bin/inferd"), "serve", str(repository), "--grpc-port", "0", "--http-port", "0"]
    server = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        text = log.read_text(errors="replace")
        if found := re.search(r'"event":"ready".*"grpc":"[^"]*:(\d+)"', text):
            return server, int(found[1])
        if server.poll() is not None:
            raise SystemExit(f"the server ended:\n{text}")
        time.sleep(0.1)
    server.kill()
    raise SystemExit(f"the server did not become ready:\n{log.read_text(errors='replace')}")


def run(models: list[str], folder: Path) -> list[Sample]:
    """Measure ``models`` one after another."""
    repository = folder / "models"
    for name in models:
        write_mlp(repository / name / "1" / "model.onnx", MLPS[name])
    threads = len(os.sched_getaffinity(0))
    ceilings = {
        name: ceiling_rows_per_s(repository / name / "1" / "model.onnx", MLPS[name][0], threads) for name in models
    }
    server, port = start_server(repository, folder / "server.log")
    samples = []
    try:
        for name in models:
            for streaming in (False, True):
                for concurrency in CONCURRENCIES:
                    report = folder / f"{name}-{streaming}-{concurrency}.csv"
                    row = measure(name, MLPS[name][0], port, concurrency, streaming=streaming, report=report)
                    samples.append(
                        Sample(
                            model=name,
                            method="ModelStreamInfer" if streaming else "ModelInfer",
                            concurrency=concurrency,
                            requests_per_s=row["Inferences/Second"],
                            p50_ms=row["p50 latency"] / 1000,
                            p99_ms=row["p99 latency"] / 1000,
                            ceiling_rows_per_s=ceilings[name],
                        )
                    )
    finally:
        server.terminate()
        server.wait(60)
    return samples


def show(samples: list[Sample]) -> None:
    """Print the samples as a table."""
    table = Table(
        "model", Column("method", no_wrap=True), "calls in flight", "requests/s", "p50 ms", "p99 ms", "of the ceiling"
    )
    for sample in samples:
        table.add_row(
            sample.model,
            sample.method,
            str(sample.concurrency),
            f"{sample.requests_per_s:,.0f}",
            f"{sample.p50_ms:.2f}",
            f"{sample.p99_ms:.2f}",
            f"{sample.requests_per_s / sample.ceiling_rows_per_s:.1%}",
        )
    Console().print(table)


def main() -> None:
    """Measure, print, and write the results down."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--model", action="append", choices=list(MLPS), help="which to measure; all if left out")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = run(chosen.model or list(MLPS), Path(folder))
    show(samples)
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }
    report = {"machine": machine, "samples": [asdict(sample) for sample in samples]}
    (results / "served.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
