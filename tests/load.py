"""Helpers for tests of a server under load: a model whose run time a request sets, and measurements.

`BusyModel` calls a served `busy_model`. While its worker is occupied, by an endless run that its caller cancels at the
end, requests wait in the queue for as long as a test needs them there; the metrics show when they have arrived, so that
no test depends on the speed of the machine.
"""

import os
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests import onnx_models
from tests.patience import PATIENCE_S, eventually
from tests.server import ServerProcess

MIB = 1024 * 1024

#: A length that only `BusyModel.occupied` uses, so that its request never shares a batch with waiting ones.
_OCCUPYING_LENGTH = 2

_WORK_WIDTH = 128
_MEASURED_TURNS = 2000

#: More iterations than any machine can do; such a run ends with its caller.
ENDLESS_TURNS = 4e18


def busy_model(*, turns: int | None = None) -> onnx.ModelProto:
    """Build ``y = x`` and ``doubled = 2x`` on FP32 [batch,length], in as many iterations as the largest element.

    With ``turns`` there are always that many, also during loading and warm-up. One iteration takes about 30 µs.
    """
    count = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["turns"], to=TensorProto.INT64),
    ]
    constants = [
        numpy_helper.from_array(np.zeros((_WORK_WIDTH, _WORK_WIDTH), np.float32), "work"),
        numpy_helper.from_array(np.array(True), "go_on"),
        numpy_helper.from_array(np.float32(2), "two"),
    ]
    if turns is not None:
        count = []
        constants.append(numpy_helper.from_array(np.array(turns, np.int64), "turns"))
    nodes = [
        *count,
        helper.make_node("Loop", ["turns", "go_on", "work"], ["worked"], body=_turn()),
        # All zero, so that the loop is not optimised away.
        helper.make_node("ReduceMax", ["worked"], ["zero"], keepdims=0),
        helper.make_node("Add", ["x", "zero"], ["y"]),
        helper.make_node("Mul", ["y", "two"], ["doubled"]),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "length"]) for n in ("x", "y", "doubled")]
    graph = helper.make_graph(nodes, "busy", values[:1], values[1:], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", onnx_models.OPSET)], ir_version=onnx_models.IR_VERSION
    )


def _turn() -> onnx.GraphProto:
    work = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [_WORK_WIDTH] * 2) for n in ("before", "after")]
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    conditions = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("more", "still_more")]
    nodes = [
        helper.make_node("Identity", ["more"], ["still_more"]),
        helper.make_node("MatMul", ["before", "before"], ["after"]),
    ]
    return helper.make_graph(nodes, "turn", [number, conditions[0], work[0]], [conditions[1], work[1]])


def add_model(repository: Path, name: str, model: onnx.ModelProto, settings: Mapping[str, Any] | None = None) -> None:
    """Add ``model`` to ``repository``, with its own ``settings``.

    A busy model has `batch_axis` set: its run time depends on all rows, although no answer does.
    """
    onnx_models.save(model, repository / name / "1" / "model.onnx")
    if model.graph.name == "busy":
        settings = {"inputs": {"x": {"batch_axis": 0}}, **(settings or {})}
    if settings is not None:
        (repository / name / "model.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def connect(address: str) -> grpc.Channel:
    """Open a connection that shares no other channel of this process."""
    return grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])


def metric(server: ServerProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=PATIENCE_S) as response:
        families = text_string_to_metric_families(response.read().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def cpu_s(server: ServerProcess) -> float:
    """Return the CPU time of the process in seconds."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def thread_count(server: ServerProcess) -> int:
    """Return the number of threads of the process."""
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def descriptor_count(server: ServerProcess) -> int:
    """Return the number of open files and sockets of the process."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def array(number: int, *, rows: int = 1, length: int = 1, turns: float = 0) -> np.ndarray:
    """Return an input of `busy_model` that ``number``, at least 1, identifies, and that takes ``turns`` iterations."""
    x = np.full((rows, length), -number, np.float32)
    if turns:
        x[0, 0] = turns
    return x


def request(model: str, x: np.ndarray, **fields: Any) -> v1.InferRequest:
    """Return a request for `busy_model`."""
    return v1.InferRequest(model=model, inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())], **fields)


def check(response: v1.InferResponse, x: np.ndarray) -> None:
    """Compare an answer with all outputs, or with y only, with its request."""
    for output in response.outputs:
        expected = 2 * x if output.name == "doubled" else x
        np.testing.assert_array_equal(np.frombuffer(output.raw, np.float32).reshape(output.shape), expected)


class BusyModel:
    """Calls one `busy_model` of a server over a new connection."""

    def __init__(self, server: ServerProcess, channel: grpc.Channel, name: str) -> None:
        self.name = name
        self._server = server
        self._stub = InferenceServiceStub(channel)
        self._statistics = GRPCInferenceServiceStub(channel)
        measured = self._stub.Infer(request(name, array(1, turns=_MEASURED_TURNS)), timeout=PATIENCE_S)
        self._turns_per_s = _MEASURED_TURNS / (measured.timing.run_us / 1e6)

    def turns(self, busy_s: float) -> int:
        """Return the number of iterations that take about ``busy_s``."""
        return max(1, round(busy_s * self._turns_per_s))

    def send(self, x: np.ndarray, *, timeout_s: float = PATIENCE_S, **fields: Any) -> grpc.Future:
        """Start a call; calls are accepted in order."""
        return self._stub.Infer.future(request(self.name, x, **fields), timeout=timeout_s)

    def call(self, x: np.ndarray) -> v1.InferResponse:
        """Call, and check the answer."""
        response = self._stub.Infer(request(self.name, x), timeout=PATIENCE_S)
        check(response, x)
        return response

    def stream(self, messages: Iterable[v1.StreamInferRequest]) -> Any:
        """Open a stream that sends ``messages``."""
        return self._stub.StreamInfer(messages, timeout=PATIENCE_S)

    @contextmanager
    def occupied(self) -> Iterator[grpc.Future]:
        """Keep the worker busy until the block ends, or the call is cancelled."""
        offered = self._metric("inferd_offered_rows_total")
        call = self.send(array(1, length=_OCCUPYING_LENGTH, turns=ENDLESS_TURNS))
        try:
            eventually(lambda: self._metric("inferd_offered_rows_total") > offered, "the request has arrived")
            self.wait_queued(0)
            yield call
        finally:
            call.cancel()

    def wait_queued(self, rows: int) -> None:
        """Wait until this many rows are in the queue."""
        eventually(lambda: self._metric("inferd_queue_rows") == rows, f"{rows} rows wait")

    def statistics(self) -> oip.ModelStatistics:
        """Return the statistics of the model."""
        return self._statistics.ModelStatistics(oip.ModelStatisticsRequest(name=self.name)).model_stats[0]

    def _metric(self, name: str) -> float:
        return metric(self._server, name, model=self.name)
