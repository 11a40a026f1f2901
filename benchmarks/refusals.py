"""What a refusal costs the server beside an answer of `small`, in processor time on one core.

One server has `small` and a model with the same input that is busy: one run that does not end, and a queue that is
full. The same load, first to the one and then to the other, is answered or refused; the median of the rounds' ratios is
the result. The endless run has the lowest priority of the kernel, and its thread is left out of the processor time.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import sleep

import grpc
import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from benchmarks import machine, options, report
from benchmarks.load import grpcload
from benchmarks.models import MODELS, ROOT, Model
from benchmarks.process import Placement, Server, free_port
from benchmarks.servers import Job, launch_tree
from benchmarks.wires import MODEL_INFER, open_inference_request
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

_ROUNDS = 5
_SECONDS = 4.0
_WARM_UP_S = 0.5
#: Calls in flight on each connection.
_IN_FLIGHT = 64
_CONNECTIONS = (1, 16)
_TIMEOUT_S = 30.0
_LOOK_S = 0.2
_BUSY = "busy"
#: One request waits, and none may wait beside it. Runs must not be ended.
_BUSY_SETTINGS = """
queue: {max_rows: 1, default_timeout_ms: 0}
batching: {enabled: false, instances: 1}
runtime: {max_run_ms: 86400000}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One round: processor time of the server per request, and requests per second of its processor time."""

    connections: int
    round: int
    answer_cpu_us: float
    refusal_cpu_us: float
    answered: int
    refused: int

    @property
    def ratio(self) -> float:
        """A refusal's cost over an answer's."""
        return self.refusal_cpu_us / self.answer_cpu_us


def _write_busy(path: Path, columns: int) -> None:
    """Write a model that goes round a loop as often as the largest number in ``x`` FP32 [batch,columns] says."""
    count = helper.make_tensor_value_info("count", TensorProto.FLOAT, [1])
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_on"], ["goes_on"]), helper.make_node("Add", ["count", "one"], ["counted"])],
        "round",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            count,
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("counted", TensorProto.FLOAT, [1]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["rounds"], to=TensorProto.INT64),
        helper.make_node("Loop", ["rounds", "", "zero"], ["counts"], body=body),
        helper.make_node("Add", ["x", "counts"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array([value], np.float32), name) for name, value in (("zero", 0), ("one", 1))
    ]
    shape: list[str | int | None] = ["batch", columns]
    graph = helper.make_graph(
        nodes,
        _BUSY,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


class _Target:
    """A server with `small` and the busy model, which both have the same input."""

    def __init__(self, server: Server, port: int, small: Model) -> None:
        self._server = server
        self._port = port
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._stub = GRPCInferenceServiceStub(self._channel)
        self._row = small.rows()[0]
        self._request = open_inference_request(small, self._row)
        self._busy_thread: int | None = None

    def wait_ready(self) -> None:
        """Wait until both models are loaded."""

        def check() -> None:
            for name in (self._request.model_name, _BUSY):
                self._stub.ModelConfig(pb.ModelConfigRequest(name=name))

        self._server.wait_ready(check)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the busy model running, and its queue full."""
        request = self._request_of(_BUSY)
        request.raw_input_contents[0] = np.full_like(self._row["x"], 1e15).tobytes()
        calls = [self._stub.ModelInfer.future(request) for _ in range(2)]
        try:
            before = self._thread_cpu_s()
            sleep(_LOOK_S)
            spent = {thread: cpu_s - before.get(thread, 0.0) for thread, cpu_s in self._thread_cpu_s().items()}
            self._busy_thread = max(spent, key=spent.__getitem__)
            os.sched_setscheduler(self._busy_thread, os.SCHED_IDLE, os.sched_param(0))
            yield
        finally:
            for call in calls:
                call.cancel()  # type: ignore[no-untyped-call]  # so in the stubs of grpc
            self._channel.close()

    def cpu_us(self, name: str, connections: int, seconds: float) -> tuple[float, int, int]:
        """Load a model; return the processor time per request and how many were answered and refused."""
        load = grpcload.Load(
            target=f"127.0.0.1:{self._port}",
            method=MODEL_INFER,
            message=self._request_of(name).SerializeToString(),
            closed=_IN_FLIGHT * connections,
            connections=connections,
            duration_s=seconds,
            warmup_s=_WARM_UP_S,
        )
        before, began = self._counts(name), self._cpu_s()
        grpcload.run(load, cpu=Placement.PINNED.load_core)
        spent = self._cpu_s() - began
        answered, refused = (now - then for now, then in zip(self._counts(name), before, strict=True))
        return spent / (answered + refused) * 1e6, answered, refused

    def _request_of(self, name: str) -> pb.ModelInferRequest:
        request = pb.ModelInferRequest()
        request.CopyFrom(self._request)
        request.model_name = name
        return request

    def _counts(self, name: str) -> tuple[int, int]:
        (found,) = self._stub.ModelStatistics(pb.ModelStatisticsRequest(name=name), timeout=_TIMEOUT_S).model_stats
        return found.inference_stats.success.count, found.inference_stats.fail.count

    def _cpu_s(self) -> float:
        return sum(cpu_s for thread, cpu_s in self._thread_cpu_s().items() if thread != self._busy_thread)

    def _thread_cpu_s(self) -> Mapping[int, float]:
        return {found.id: found.user_time + found.system_time for found in psutil.Process(self._server.pid).threads()}


@contextmanager
def _serving(tree: Path) -> Iterator[_Target]:
    small, port = MODELS["small"], free_port()
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write_busy(folder / _BUSY / "1" / "model.onnx", small.rows()[0]["x"].size)
        (folder / _BUSY / "model.yaml").write_text(_BUSY_SETTINGS)
        launch = launch_tree(tree, Job(model=small, setting=None, port=port, folder=folder))
        command = [*Placement.PINNED.server, *launch.command, str(folder / _BUSY)]
        with Server(command, launch.environment, folder) as server:
            target = _Target(server, port, small)
            target.wait_ready()
            with target.busy():
                yield target


def measure(tree: Path, rounds: int, seconds: float, console: Console) -> Iterator[Sample]:
    """Measure answers and refusals, alternating."""
    with _serving(tree) as target:
        for number in range(1, rounds + 1):
            for connections in _CONNECTIONS:
                answer_us, answered, failed = target.cpu_us("small", connections, seconds)
                refusal_us, passed, refused = target.cpu_us(_BUSY, connections, seconds)
                if failed or passed:
                    msg = f"expected answers only and then refusals only, got {failed} refusals and {passed} answers"
                    raise RuntimeError(msg)
                sample = Sample(
                    connections=connections,
                    round=number,
                    answer_cpu_us=answer_us,
                    refusal_cpu_us=refusal_us,
                    answered=answered,
                    refused=refused,
                )
                costs = f"answer {answer_us:.1f} µs, refusal {refusal_us:.1f} µs, ratio {sample.ratio:.3f}"
                console.print(f"round {number}  {connections} connections: {costs}", highlight=False)
                yield sample


def show(samples: Sequence[Sample], console: Console) -> list[dict[str, float]]:
    """Print the medians over the rounds and return them."""
    table = Table("connections", "answer, CPU µs", "refusal, CPU µs", "refusal / answer")
    medians = []
    for connections in _CONNECTIONS:
        group = [sample for sample in samples if sample.connections == connections]
        if not group:
            continue
        names = ("answer_cpu_us", "refusal_cpu_us", "ratio")
        figures = {name: median(getattr(sample, name) for sample in group) for name in names}
        medians.append({"connections": connections, **figures})
        answer_us, refusal_us, ratio = figures.values()
        table.add_row(str(connections), f"{answer_us:.1f}", f"{refusal_us:.1f}", f"{ratio:.3f}")
    console.print(table)
    return medians


def main() -> None:
    """Measure, print, and write the results down."""
    parser = options.parser(__doc__, "refusals")
    options.add_rounds(parser, rounds=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help=f"of each load; default {_SECONDS:g}")
    parser.add_argument("--tree", type=Path, default=ROOT, help="where the server's code is; default this tree")
    chosen = parser.parse_args()
    console, samples = report.console(), list[Sample]()
    try:
        for sample in measure(chosen.tree.resolve(), chosen.rounds, chosen.seconds, console):
            samples.append(sample)
    finally:
        medians = show(samples, console)
        content = {"machine": machine.describe(), "medians": medians, "rounds": [*map(asdict, samples)]}
        report.write_json(chosen.name, content, console)


if __name__ == "__main__":
    main()
