"""The protocols of servers: one request to check its answer, and load."""

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks import perf_analyzer, wrk
from benchmarks.load import grpcload
from benchmarks.models import Model, Row
from benchmarks.process import Placement, Result
from inferd import dtypes
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL_STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"

TIMEOUT_S = 30
#: The duration of perf_analyzer's three windows.
GRPCLOAD_S = 4.5
_NAMES = {dtype.numpy: dtype.name for dtype in dtypes.ALL}

#: Outputs by name; a protocol without names has the first output under the empty name.
Answer = dict[str, NDArray[np.generic]]


class Wire(Protocol):
    """One protocol of a server."""

    def takes(self, model: Model) -> bool:
        """Return whether the protocol can carry requests for the model."""

    def ask(self, model: Model, port: int, row: Row) -> Answer:
        """Send one request and return its answer."""

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:
        """Keep requests in flight for a few seconds."""


class OpenInference:
    """The Open Inference Protocol over gRPC, by unary calls or by Triton's stream.

    Only load from grpcload has the ``metadata``.
    """

    def __init__(self, *, streaming: bool = False, metadata: Mapping[str, str] | None = None) -> None:
        self._streaming = streaming
        self._metadata = dict(metadata or {})

    @property
    def by_grpcload(self) -> "OpenInferenceByGrpcload":
        """Return the same with another load generator."""
        return OpenInferenceByGrpcload(streaming=self._streaming)

    def takes(self, model: Model) -> bool:  # noqa: ARG002  # As `Wire` has it.
        """Return True: it carries every model."""
        return True

    def ask(self, model: Model, port: int, row: Row) -> Answer:
        """Send one request and return its answer."""
        request, metadata = open_inference_request(model, row), tuple(self._metadata.items())
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
            stub = GRPCInferenceServiceStub(channel)
            if self._streaming:
                (answer,) = stub.ModelStreamInfer(iter([request]), timeout=TIMEOUT_S, metadata=metadata)
                response = answer.infer_response
            else:
                response = stub.ModelInfer(request, timeout=TIMEOUT_S, metadata=metadata)
        return {
            output.name: np.frombuffer(raw, dtypes.BY_NAME[output.datatype].numpy).reshape(output.shape)
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:
        """Keep requests in flight with perf_analyzer."""
        return perf_analyzer.measure(model, port, concurrency, placement, folder, streaming=self._streaming)


class OpenInferenceByGrpcload(OpenInference):
    """The same with load from grpcload, for servers without the ModelConfig call that perf_analyzer needs."""

    def __init__(
        self, *, streaming: bool = False, metadata: Mapping[str, str] | None = None, seconds: float = GRPCLOAD_S
    ) -> None:
        super().__init__(streaming=streaming, metadata=metadata)
        self._seconds = seconds

    def takes(self, model: Model) -> bool:
        """Return whether all requests have the same shapes, because grpcload sends a single one."""
        return all_alike(model)

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:  # noqa: ARG002  # As `Wire` has it.
        """Keep requests in flight with grpcload."""
        load = grpcload.Load(
            target=f"127.0.0.1:{port}",
            method=MODEL_STREAM_INFER if self._streaming else MODEL_INFER,
            message=open_inference_request(model, model.rows()[0]).SerializeToString(),
            closed=concurrency,
            duration_s=self._seconds,
            headers=self._metadata,
            streams=1 if self._streaming else None,
        )
        return offer(load, placement)


def offer(load: grpcload.Load, placement: Placement) -> Result:
    """Run grpcload. Raises `RuntimeError` if it gets no answer."""
    tally = grpcload.run(load, cpu=placement.load_core).load
    if not tally.ok:
        msg = f"grpcload got no answer: {tally.first_failure or tally}"
        raise RuntimeError(msg)
    return Result(
        requests_per_s=tally.ok_per_s,
        p50_ms=tally.latency_ms.p50,
        p99_ms=tally.latency_ms.p99,
        errors=tally.requests - tally.ok,
    )


def all_alike(model: Model) -> bool:
    """Return whether all requests for the model have the same shapes."""
    return len({tuple(array.shape for array in row.values()) for row in model.rows()}) == 1


class RawHttp:
    """HTTP with a row's bytes as the body, both ways."""

    def __init__(self, path: str, content_type: str = "application/octet-stream") -> None:
        self._path = path
        self._content_type = content_type

    def takes(self, model: Model) -> bool:
        """Return whether the model has a single input, because a body is one tensor."""
        return len(model.rows()[0]) == 1

    def ask(self, model: Model, port: int, row: Row) -> Answer:  # noqa: ARG002  # As `Wire` has it.
        """Send one request and return its answer as FP32."""
        return self._answer(post(port, self._path, self._body(row), self._content_type))

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:
        """Keep connections busy with wrk."""
        url = f"http://127.0.0.1:{port}{self._path}"
        headers = {"Content-Type": self._content_type}
        return wrk.measure(url, self._body(model.rows()[0]), headers, concurrency, placement, folder)

    def _body(self, row: Row) -> bytes:
        (array,) = row.values()
        return array.tobytes()

    def _answer(self, body: bytes) -> Answer:
        return {"": np.frombuffer(body, np.float32)}


class JsonHttp(RawHttp):
    """HTTP with the row as a list of numbers."""

    def __init__(self, path: str) -> None:
        super().__init__(path, "application/json")

    def _body(self, row: Row) -> bytes:
        (array,) = row.values()
        return json.dumps({"rows": [array.tolist()]}).encode()

    def _answer(self, body: bytes) -> Answer:
        return {"": np.array(json.loads(body), np.float32)}


def open_inference_request(model: Model, row: Row) -> oip.ModelInferRequest:
    """Return a request of one row with raw tensors."""
    return oip.ModelInferRequest(
        model_name=model.served_as,
        inputs=[
            oip.ModelInferRequest.InferInputTensor(name=name, datatype=_NAMES[array.dtype], shape=[1, *array.shape])
            for name, array in row.items()
        ],
        raw_input_contents=[array.tobytes() for array in row.values()],
    )


def post(port: int, path: str, body: bytes, content_type: str) -> bytes:
    """Post to a local server and return the body of the response. Raises `RuntimeError` for any status but 200."""
    return ask(port, path, body, {"Content-Type": content_type})[1]


def ask(port: int, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
    """Post to a local server, return headers and body of the answer. Raises `RuntimeError` for any status but 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, dict(headers))
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        msg = f"HTTP {response.status}: {answer[:500]!r}"
        raise RuntimeError(msg)
    return dict(response.headers.items()), answer
