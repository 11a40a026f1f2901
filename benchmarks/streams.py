"""Load over ``inferd.v1``: streams whose messages may carry several requests."""

from pathlib import Path

import grpc
import numpy as np

from benchmarks.load import grpcload
from benchmarks.models import Model, Row
from benchmarks.process import Placement, Result
from benchmarks.wires import GRPCLOAD_S, TIMEOUT_S, Answer, all_alike, offer
from inferd import dtypes
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub

_STREAM_INFER = "/inferd.v1.InferenceService/StreamInfer"
_BY_PROTO = {dtype.proto: dtype for dtype in dtypes.ALL}


class StreamInfer:
    """``StreamInfer`` on one stream, with one request per message, or with a quarter of the requests in flight."""

    def __init__(self, *, packed: bool) -> None:
        self._packed = packed

    def takes(self, model: Model) -> bool:
        """Return whether all requests have the same shapes, because grpcload sends a single one."""
        return all_alike(model)

    def ask(self, model: Model, port: int, row: Row) -> Answer:
        """Send one request, or four at once, and return the last one's answer."""
        request = _request(model, row)
        message = v1.StreamInferRequest(requests=[request] * (4 if self._packed else 1))
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
            messages = list(InferenceServiceStub(channel).StreamInfer(iter([message]), timeout=TIMEOUT_S))
        result = messages[-1].results[-1]
        if result.WhichOneof("result") != "response":
            msg = f"no answer: {result}"
            raise RuntimeError(msg)
        return {
            output.name: np.frombuffer(output.raw, _BY_PROTO[output.datatype].numpy).reshape(output.shape)
            for output in result.response.outputs
        }

    def load(self, model: Model, port: int, concurrency: int, placement: Placement, folder: Path) -> Result:  # noqa: ARG002  # As `Wire` has it.
        """Keep requests in flight with grpcload."""
        packed = max(1, concurrency // 4) if self._packed else 1
        message = v1.StreamInferRequest(requests=[_request(model, model.rows()[0])] * packed)
        load = grpcload.Load(
            target=f"127.0.0.1:{port}",
            method=_STREAM_INFER,
            message=message.SerializeToString(),
            closed=concurrency,
            duration_s=GRPCLOAD_S,
            streams=1,
            packed=packed,
            count_field=True,
        )
        return offer(load, placement)


def _request(model: Model, row: Row) -> v1.InferRequest:
    tensors = [v1.Tensor(name=name, shape=[1, *array.shape], raw=array.tobytes()) for name, array in row.items()]
    return v1.InferRequest(model=model.served_as, inputs=tensors)
