"""Requests and answers of the contract, made from and turned into the client's own types. Pure."""

from collections.abc import Sequence
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import codec
from inferd.client.codec import Inputs
from inferd.client.errors import InferdError, from_status
from inferd.client.results import BatchingInfo, ModelInfo, ModelState, Result, TensorInfo, Timing


def infer_request(
    *,
    model: str,
    version: str,
    inputs: Inputs,
    outputs: Sequence[str],
    priority: int,
    request_id: str,
    timeout_s: float | None = None,
) -> pb.InferRequest:
    """Build one request; ``timeout_s`` is for requests of a stream, which have no deadline of their own."""
    return pb.InferRequest(
        model=model,
        version=version,
        request_id=request_id,
        inputs=[codec.encode(name, value) for name, value in inputs.items()],
        outputs=outputs,
        priority=priority,
        timeout=None if timeout_s is None else _duration(timeout_s),
    )


def result(response: pb.InferResponse) -> Result:
    """Read one answer."""
    timing = response.timing
    return Result(
        outputs={tensor.name: codec.decode(tensor) for tensor in response.outputs},
        model=response.model,
        version=response.version,
        request_id=response.request_id,
        timing=Timing(queue_s=timing.queue_us / 1e6, run_s=timing.run_us / 1e6, batch_rows=timing.batch_rows),
    )


def stream_outcome(infer_result: pb.InferResult) -> Result | InferdError:
    """Read the end of one request of a stream."""
    if infer_result.HasField("response"):
        return result(infer_result.response)
    return from_status(infer_result.error)


def model_info(model: pb.Model) -> ModelInfo:
    """Read the description of one model version."""
    return ModelInfo(
        name=model.name,
        version=model.version,
        state=_state(model.state),
        reason=model.reason,
        inputs=tuple(map(_tensor_info, model.inputs)),
        outputs=tuple(map(_tensor_info, model.outputs)),
        batching=_batching_info(model.batching),
        providers=tuple(model.providers),
    )


def _tensor_info(tensor: pb.TensorInfo) -> TensorInfo:
    datatype = codec.datatype_numbered(tensor.datatype)
    names = list(tensor.dimension_names) or [""] * len(tensor.shape)
    return TensorInfo(
        name=tensor.name,
        datatype=datatype.name,
        dtype=datatype.numpy,
        shape=tuple(size if size >= 0 else name or None for size, name in zip(tensor.shape, names, strict=True)),
        batch_axis=tensor.batch_axis if tensor.HasField("batch_axis") else None,
    )


def _batching_info(batching: pb.Batching) -> BatchingInfo:
    return BatchingInfo(
        enabled=batching.enabled,
        max_batch_size=batching.max_batch_size,
        max_wait_s=batching.max_wait.ToNanoseconds() / 1e9,
        instances=batching.instances,
        max_queue_rows=batching.max_queue_rows,
        backpressure=batching.backpressure,
        priority_levels=batching.priority_levels,
    )


def _state(number: pb.Model.State.ValueType) -> ModelState:
    """Name a state; one that only newer servers know is UNSPECIFIED here, as the contract's rules have it."""
    names = {value: name.removeprefix("STATE_") for name, value in pb.Model.State.items()}
    return ModelState(names.get(number, "UNSPECIFIED"))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
