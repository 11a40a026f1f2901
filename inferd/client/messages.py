"""Requests and answers of the contract, made from and turned into the client's own types. Pure."""

from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import codec
from inferd.client.codec import Inputs
from inferd.client.errors import InferdError, from_status
from inferd.client.results import BatchingInfo, ModelInfo, ModelState, Result, TensorInfo, Timing

_REQUEST_ID = wire.tag(pb.InferRequest, "request_id")


class RequestWriter:
    """Writes requests, as the bytes of `InferRequest`, that differ in nothing but their ids and inputs.

    ``timeout_s`` is for requests of a stream, which have no deadline of their own.
    """

    __slots__ = ("_head", "_tail")

    def __init__(
        self, model: str, version: str, outputs: tuple[str, ...], priority: int, timeout_s: float | None
    ) -> None:
        self._head = pb.InferRequest(model=model, version=version).SerializeToString()
        self._tail = pb.InferRequest(
            outputs=outputs, priority=priority, timeout=None if timeout_s is None else _duration(timeout_s)
        ).SerializeToString()

    def write(self, request_id: str, fields: Iterable[bytes]) -> bytes:
        """Write a request whose inputs `input_fields` has written."""
        own_id = wire.field(_REQUEST_ID, request_id.encode()) if request_id else b""
        return b"".join((self._head, own_id, *fields, self._tail))


#: Callers repeat themselves, and what they repeat is written once.
request_writer = lru_cache(maxsize=256)(RequestWriter)


def input_fields(inputs: Inputs) -> list[bytes]:
    """Write the inputs of a request, in parts that belong together. Raises `InvalidInput` for what cannot be sent."""
    fields: list[bytes] = []
    for name, value in inputs.items():
        fields += codec.encode(name, value)
    return fields


def result(response: pb.InferResponse) -> Result:
    """Read one answer."""
    return _result(response, response.request_id)


def _result(response: pb.InferResponse, request_id: str) -> Result:
    timing = response.timing
    return Result(
        outputs={tensor.name: codec.decode(tensor) for tensor in response.outputs},
        model=response.model,
        version=response.version,
        request_id=request_id,
        timing=Timing(queue_s=timing.queue_us / 1e6, run_s=timing.run_us / 1e6, batch_rows=timing.batch_rows),
    )


def stream_outcome(infer_result: pb.InferResult, request_id: str) -> Result | InferdError:
    """Read the end of one request of a stream; ``request_id`` is what its caller calls it."""
    if infer_result.HasField("response"):
        return _result(infer_result.response, request_id)
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
        optional=tensor.optional,
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
        verdict=_verdict(batching.verdict),
        verdict_reason=batching.verdict_reason,
        checks=batching.checks,
        mismatches=batching.mismatches,
    )


def _verdict(number: pb.Batching.Verdict.ValueType) -> str:
    """Name a verdict; empty for none, and for one that only newer servers know."""
    names = {value: name.removeprefix("VERDICT_").lower() for name, value in pb.Batching.Verdict.items()}
    return names.get(number, "") if number else ""


def _state(number: pb.Model.State.ValueType) -> ModelState:
    """Name a state; one that only newer servers know is UNSPECIFIED here, as the contract's rules have it."""
    names = {value: name.removeprefix("STATE_") for name, value in pb.Model.State.items()}
    return ModelState(names.get(number, "UNSPECIFIED"))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
