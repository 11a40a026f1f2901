"""Convert between messages of the contract and the client's types. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.arguments import checked_flag, checked_integer, checked_text
from inferd.client import codec
from inferd.client.codec import Inputs
from inferd.client.errors import InferdError, from_status
from inferd.client.results import (
    BatchingInfo,
    GenerationInfo,
    ModelInfo,
    ModelState,
    PredictedRun,
    Residency,
    Result,
    RunCost,
    TensorInfo,
    Timing,
)

_REQUEST_ID = wire.tag(pb.InferRequest, "request_id")

# Servers show no more of an id in their logs.
_LONGEST_ID = 128
_MAX_PRIORITY = 2**32 - 1


class RequestWriter:
    """Writes requests as bytes of `InferRequest`, which differ only in their ids and inputs.

    ``timeout_s`` is for requests of a stream, which have no deadline of their own.
    """

    __slots__ = ("_head", "_tail")

    def __init__(
        self, model: str, version: str, outputs: tuple[str, ...], priority: int, timeout_s: float | None
    ) -> None:
        checked_text("model", model)
        checked_text("version", version)
        for output in outputs:
            checked_text("outputs", output)
        checked_integer("priority", priority, 0, _MAX_PRIORITY)
        self._head = pb.InferRequest(model=model, version=version).SerializeToString()
        self._tail = pb.InferRequest(
            outputs=outputs, priority=priority, timeout=None if timeout_s is None else _duration(timeout_s)
        ).SerializeToString()

    def write(self, request_id: str, fields: Iterable[bytes]) -> bytes:
        """Write a request from inputs written by `input_fields`."""
        own_id = wire.field(_REQUEST_ID, request_id.encode()) if request_id else b""
        return b"".join((self._head, own_id, *fields, self._tail))


# Callers repeat themselves, and what they repeat is written once.
_known_writer = lru_cache(maxsize=256)(RequestWriter)


def request_writer(
    model: str, version: str, outputs: Sequence[str], priority: int, timeout_s: float | None
) -> RequestWriter:
    """Return a writer of such requests. Raises `TypeError` or `ValueError` naming the argument."""
    names = outputs if type(outputs) is tuple else _names(outputs)
    if type(priority) is not int:  # True and 1.0 would be found under 1
        priority = checked_integer("priority", priority, 0, _MAX_PRIORITY)
    try:
        return _known_writer(model, version, names, priority, timeout_s)
    except TypeError:
        pass  # What cannot be looked up is not of the right type either, and the writer says so itself.
    return RequestWriter(model, version, names, priority, timeout_s)


def _names(outputs: object) -> tuple[str, ...]:
    if isinstance(outputs, str | bytes) or not isinstance(outputs, Iterable):
        raise TypeError(f"outputs: expected a sequence of names, got {type(outputs).__name__}")
    return tuple(outputs)


def checked_request_id(value: object) -> str:
    """Return an id. Raises `TypeError` or `ValueError` for one that a server's log would not show unchanged."""
    request_id = checked_text("request_id", value)
    if len(request_id) > _LONGEST_ID:
        raise ValueError(f"request_id: expected at most {_LONGEST_ID} characters, got {len(request_id)}")
    return request_id


def input_fields(inputs: Inputs) -> list[bytes]:
    """Write the inputs of a request, as parts to be joined. Raises `InvalidInput`."""
    if type(inputs) is not dict and not isinstance(inputs, Mapping):  # the second alone takes longer
        raise TypeError(f"inputs: expected a mapping of arrays by name, got {type(inputs).__name__}")
    fields: list[bytes] = []
    for name, value in inputs.items():
        fields += codec.encode(name, value)
    return fields


def model_request(name: str, version: str, *, load: bool = False) -> pb.GetModelRequest:
    """Return the request for one model version. Raises `TypeError` or `ValueError` naming the argument."""
    checked_text("model", name)
    checked_text("version", version)
    return pb.GetModelRequest(model=name, version=version, load=checked_flag("load", load))


def result(response: pb.InferResponse, metadata: Mapping[str, str | bytes] | None = None) -> Result:
    """Convert a response; ``metadata`` is what came with it."""
    return _result(response, response.request_id, metadata)


def _result(response: pb.InferResponse, request_id: str, metadata: Mapping[str, str | bytes] | None = None) -> Result:
    timing = response.timing
    return Result(
        outputs={tensor.name: codec.decode(tensor) for tensor in response.outputs},
        model=response.model,
        version=response.version,
        request_id=request_id,
        timing=Timing(queue_s=timing.queue_us / 1e6, run_s=timing.run_us / 1e6, batch_rows=timing.batch_rows),
        metadata=metadata or {},
    )


def stream_outcome(infer_result: pb.InferResult, request_id: str) -> Result | InferdError:
    """Convert the outcome of one request of a stream; ``request_id`` is the caller's."""
    if infer_result.HasField("response"):
        return _result(infer_result.response, request_id)
    error = from_status(infer_result.error)
    error.request_id = request_id or infer_result.request_id
    return error


def model_info(model: pb.Model) -> ModelInfo:
    """Convert the description of one model version."""
    return ModelInfo(
        name=model.name,
        version=model.version,
        state=state_of(model.state),
        reason=model.reason,
        inputs=tuple(map(_tensor_info, model.inputs)),
        outputs=tuple(map(_tensor_info, model.outputs)),
        batching=_batching_info(model.batching),
        providers=tuple(model.providers),
        run_cost=_run_cost(model.run_cost) if model.HasField("run_cost") else None,
        residency=_residency(model.residency) if model.HasField("residency") else None,
        generation=_generation_info(model.generation) if model.HasField("generation") else None,
    )


def _residency(residency: pb.Residency) -> Residency:
    return Residency(
        on_demand=residency.on_demand,
        memory_bytes=residency.memory_bytes,
        device_memory_bytes=residency.device_memory_bytes,
        load_s=residency.load_duration.ToNanoseconds() / 1e9,
    )


def _generation_info(generation: pb.Generation) -> GenerationInfo:
    return GenerationInfo(
        context_length=generation.context_length,
        vocabulary_size=generation.vocabulary_size,
        max_sequences=generation.max_sequences,
        cache_bytes_per_token=generation.cache_bytes_per_token,
        cache_bytes=generation.cache_bytes,
        cache_bytes_in_use=generation.cache_bytes_in_use,
        has_tokenizer=generation.has_tokenizer,
        has_chat_template=generation.has_chat_template,
        default_max_tokens=generation.default_max_tokens,
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
        min_instances=batching.min_instances,
        present_instances=batching.present_instances,
    )


def _run_cost(cost: pb.RunCost) -> RunCost:
    return RunCost(
        sizes=tuple(
            PredictedRun(run.rows, run.duration.ToNanoseconds() / 1e9, run.duration_p95.ToNanoseconds() / 1e9)
            for run in cost.sizes
        ),
        error=cost.error if cost.HasField("error") else None,
        runs=cost.runs,
    )


def _verdict(number: pb.Batching.Verdict.ValueType) -> str:
    """Return the name of a verdict; empty for none, or for one of a newer server."""
    names = {value: name.removeprefix("VERDICT_").lower() for name, value in pb.Batching.Verdict.items()}
    return names.get(number, "") if number else ""


def state_of(number: pb.Model.State.ValueType) -> ModelState:
    """Return a state; one of a newer server is UNSPECIFIED, as the contract says."""
    names = {value: name.removeprefix("STATE_") for name, value in pb.Model.State.items()}
    return ModelState(names.get(number, "UNSPECIFIED"))


def _duration(seconds: float) -> Duration:
    """Write a timeout of at least 1 ns, because servers reject 0."""
    duration = Duration()
    duration.FromNanoseconds(max(1, round(seconds * 1e9)))
    return duration
