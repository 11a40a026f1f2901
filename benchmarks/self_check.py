"""Cost of the self-check of batching, and how soon it detects a model that must not be batched.

The cost is read from the server's counters: the run time of requests that ran again alone, relative to that of all
runs. The model to detect adds the sum of the batch to rows with large values; its verification is bypassed by a cached
verdict. Requests arrive at random times at half the capacity: first small values only, then large ones only or one in
64.
"""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.load import grpcload
from benchmarks.models import ROOT, Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.wires import MODEL_INFER, open_inference_request
from inferd._generated.inference import grpc_service_pb2 as pb

_MODELS = ("small", "mid")
_SECONDS = 10.0
_CLOSED = 64
_QUIET_S = 3.0
_LONGEST_S = 30.0
_POLL_S = 0.02
_ONE_IN = 64
_WIDTH = 64
_LARGE = 1000.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Share of checks in a model's run time, with 64 calls in flight."""

    model: str
    placement: str
    requests_per_s: float
    batches: int
    checks: int
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Caught:
    """Number of batches of several rows until batching stopped, None if it did not; one row in ``large`` is large."""

    large: int
    requests_per_s: float
    batches: int | None
    rows_per_batch: float


class _Counters:
    """The server's counters of its only model."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def read(self) -> dict[str, float]:
        with urlopen(self._url, timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name if "le" not in sample.labels else f"{sample.name} {sample.labels['le']}"
                if "model" in sample.labels:
                    found[name] = found.get(name, 0.0) + sample.value
        found["batches"] = found["inferd_batch_rows_count"] - found["inferd_batch_rows_bucket 1.0"]
        return found

    def wait_ready(self) -> None:
        """Raise unless the server is ready."""
        urlopen(self._url.replace("/metrics", "/readyz"), timeout=10).close()


def cost(model: Model, placement: Placement) -> Cost:
    """Load a server with default settings, and read its counters."""
    with TemporaryDirectory() as name, _serving(model.folder, placement, Path(name)) as (port, counters):
        load = grpcload.Load(
            target=f"127.0.0.1:{port}",
            method=MODEL_INFER,
            message=open_inference_request(model, model.rows()[0]).SerializeToString(),
            closed=_CLOSED,
            duration_s=_SECONDS,
        )
        result = grpcload.run(load, cpu=placement.load_core)
        found = counters.read()
    return Cost(
        model=model.name,
        placement=placement,
        requests_per_s=result.load.ok_per_s,
        batches=round(found["batches"]),
        checks=round(found["inferd_batch_checks_total"]),
        share=found["inferd_batch_check_seconds_total"] / found["inferd_inference_duration_seconds_sum"],
    )


def caught(large: int, placement: Placement, seed: int) -> Caught:
    """Serve the model that is wrong for large values, and count its batches until batching stops."""
    with TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folder = Path(name)
        path = _write_model(folder)
        _pretend_proven(path, placement, folder)
        with _serving(path, placement, folder) as (port, counters):
            offer = _Offer(pool, port, placement, seed)
            rate = offer.capacity() / 2
            offer.send({1.0: rate}, _QUIET_S).result()
            before = counters.read()
            rates = {_LARGE: rate} if large == 1 else {1.0: rate * (large - 1) / large, _LARGE: rate / large}
            load = offer.send(rates, _LONGEST_S)
            after = _wait_for_mismatch(counters, load)
    batches = after["batches"] - before["batches"]
    runs, rows = (after[f"inferd_batch_rows_{kind}"] - before[f"inferd_batch_rows_{kind}"] for kind in ("count", "sum"))
    return Caught(
        large=large,
        requests_per_s=rate,
        batches=round(batches) if after["inferd_batch_mismatches_total"] else None,
        rows_per_batch=(rows - (runs - batches)) / max(batches, 1),
    )


@contextmanager
def _serving(model: Path, placement: Placement, folder: Path) -> Iterator[tuple[int, _Counters]]:
    """Serve ``model`` with verdicts cached in ``folder``. Yields the gRPC port and the counters."""
    port, metrics_port = free_port(), free_port()
    command = [sys.executable, "-m", "inferd", "serve", str(model)]
    command += ["--grpc-port", str(port), "--http-port", "none", "--metrics-port", str(metrics_port)]
    environment = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder)}
    counters = _Counters(metrics_port)
    with Server([*placement.server, *command], environment, folder) as server:
        server.wait_ready(counters.wait_ready)
        yield port, counters


def _wait_for_mismatch(counters: _Counters, load: "Future[None]") -> dict[str, float]:
    """Return the counters after the first mismatch, when there are no more batches."""
    while True:
        found = counters.read()
        if found["inferd_batch_mismatches_total"] or load.done():
            return found
        time.sleep(_POLL_S)


class _Offer:
    """Sends rows of equal elements at random times."""

    def __init__(self, pool: ThreadPoolExecutor, port: int, placement: Placement, seed: int) -> None:
        self._pool = pool
        self._target = f"127.0.0.1:{port}"
        self._core = placement.load_core
        self._seed = seed

    def capacity(self) -> float:
        """Return the maximum throughput in requests per second."""
        load = grpcload.Load(
            target=self._target,
            method=MODEL_INFER,
            message=_message(1.0),
            closed=_CLOSED,
            duration_s=2.0,
        )
        return grpcload.run(load, cpu=self._core).load.ok_per_s

    def send(self, rates: dict[float, float], seconds: float) -> "Future[None]":
        """Send rows of each value in ``rates`` at its rate per second."""
        sent = [self._pool.submit(self._send, value, rate, seconds) for value, rate in rates.items()]
        return self._pool.submit(self._wait, sent)

    @staticmethod
    def _wait(sent: "list[Future[None]]") -> None:
        for each in sent:
            each.result()

    def _send(self, value: float, rate: float, seconds: float) -> None:
        load = grpcload.Load(
            target=self._target,
            method=MODEL_INFER,
            message=_message(value),
            poisson_per_s=rate,
            duration_s=seconds,
            warmup_s=0.0,
            seed=self._seed,
        )
        grpcload.run(load, cpu=self._core)


def _message(value: float) -> bytes:
    """Return a request of one row whose elements are ``value``."""
    request = pb.ModelInferRequest(
        model_name="conditional", raw_input_contents=[np.full(_WIDTH, value, "<f4").tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1, _WIDTH])
    return request.SerializeToString()


def _write_model(folder: Path) -> Path:
    node, value = helper.make_node, helper.make_tensor_value_info
    constants = {
        "limit": np.float32(100),
        "none": np.float32(0),
        "rows": np.array([0], np.int64),
        "columns": np.array([1], np.int64),
        "w": np.random.default_rng(0).normal(size=(_WIDTH, _WIDTH)).astype(np.float32),
    }
    nodes = [
        node("Abs", ["x"], ["size"]),
        node("ReduceMax", ["size", "columns"], ["largest"], keepdims=1),
        node("Greater", ["largest", "limit"], ["is_large"]),
        node("ReduceSum", ["x", "rows"], ["total"], keepdims=1),
        node("Where", ["is_large", "total", "none"], ["added"]),
        node("Add", ["x", "added"], ["sum"]),
        node("MatMul", ["sum", "w"], ["y"]),
    ]
    inputs, outputs = ([value(name, TensorProto.FLOAT, ["batch", _WIDTH])] for name in "xy")
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "conditional", inputs, outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "conditional" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(made, path)
    return folder / "conditional"


def _pretend_proven(model: Path, placement: Placement, folder: Path) -> None:
    """Let a server write the true verdict to the cache, and invert it."""
    with _serving(model, placement, folder):
        pass
    (file,) = folder.rglob("verdicts/*.json")
    verdict = json.loads(file.read_text())
    verdict |= {"standing": "proven", "reason": "", "misfit": False, "axes": {"inputs": {"x": 0}, "outputs": {"y": 0}}}
    file.write_text(json.dumps(verdict))


def show(costs: list[Cost], found: list[Caught], console: Console) -> None:
    """Print both tables."""
    table = Table("model", "placement", "requests/s", "batches", "checks", "share of run time")
    for cost in costs:
        numbers = (f"{cost.requests_per_s:,.0f}", f"{cost.batches:,}", f"{cost.checks:,}", f"{cost.share:.2%}")
        table.add_row(cost.model, cost.placement, *numbers)
    console.print(table)
    table = Table("large rows", "requests/s", "rows per batch", "batches until it was caught")
    for one in found:
        which = "all" if one.large == 1 else f"one in {one.large}"
        until = "not caught" if one.batches is None else f"{one.batches:,}"
        table.add_row(which, f"{one.requests_per_s:,.0f}", f"{one.rows_per_batch:.1f}", until)
    console.print(table)


def main() -> None:
    """Measure, print, and write the results."""
    parser = options.parser(__doc__, "self_check")
    options.add_placement_and_rounds(parser)
    chosen = parser.parse_args()
    costs = [
        cost(model, placement) for placement in options.placements(chosen) for model in options.models(chosen, _MODELS)
    ]
    found = [
        caught(large, placement, seed)
        for placement in options.placements(chosen)
        for large in (1, _ONE_IN)
        for seed in range(chosen.rounds)
    ]
    console = report.console()
    show(costs, found, console)
    report.write_json(
        chosen.name,
        {"machine": machine.describe(), "costs": [*map(asdict, costs)], "caught": [*map(asdict, found)]},
        console,
    )


if __name__ == "__main__":
    main()
