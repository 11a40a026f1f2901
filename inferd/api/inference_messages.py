"""The messages of ``inferd.v1`` to and from arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from inferd import dtypes, wire
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.api import tensor_bytes, typed_values
from inferd.api.codec import Answer
from inferd.api.parsing import parsed, scanned
from inferd.api.request_scan import DEFAULT_LIMITS, Frame, MessageLimits, RequestScanner
from inferd.api.submission import DecodedRequest
from inferd.dtypes import BYTES
from inferd.errors import InvalidInputError, Part, Place
from inferd.runtime.signature import ModelSignature, TensorSpec

_MAX_UINT32 = 2**32 - 1


class InferenceCodec:
    """The messages of ``Infer`` and of the requests within ``StreamInfer``."""

    def __init__(self, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._scanner = RequestScanner(
            pb.InferRequest.DESCRIPTOR,
            raw=frozenset({"inferd.v1.Tensor.raw"}),
            request_id="inferd.v1.InferRequest.request_id",
            lists=frozenset({"inferd.v1.Tensor"}),
            limits=limits,
        )

    def scan(self, message: bytes) -> Frame | None:
        """Refuse a message that would be much work to parse; return its frame, None if it has none."""
        return scanned(self._scanner.scan, pb.InferRequest, message)

    def parse(self, message: bytes) -> pb.InferRequest:
        """Parse a request that was scanned."""
        return parsed(pb.InferRequest, message)

    def target(self, request: pb.InferRequest) -> tuple[str, str]:
        """Return the name and version of the model that is asked."""
        return request.model, request.version

    def request_id(self, request: pb.InferRequest) -> str:
        """Return the caller's own id of the request, or an empty string."""
        return request.request_id

    def decode(self, request: pb.InferRequest, signature: ModelSignature) -> DecodedRequest:
        """Turn ``request`` into arrays of the types and ranks that ``signature`` declares."""
        inputs: dict[str, NDArray[np.generic]] = {}
        for tensor in request.inputs:
            if tensor.name in inputs:
                msg = f'input "{tensor.name}": expected once, got it again'
                raise InvalidInputError(msg, field=f"inputs[{len(inputs)}].name")
            inputs[tensor.name] = _decode_tensor(tensor, signature.input(tensor.name), self._limits)
        return DecodedRequest(
            inputs=inputs,
            outputs=tuple(request.outputs),
            priority=request.priority,
            timeout_s=_timeout_s(request),
        )

    def field_of(self, request: pb.InferRequest, at: Place | Part) -> str:
        """Return the path to what an error about ``request`` is about."""
        if not isinstance(at, Place):
            return at
        if at.kind == "output":
            return f"outputs[{list(request.outputs).index(at.name)}]"
        position = [tensor.name for tensor in request.inputs].index(at.name)
        if at.aspect != "elements":
            return f"inputs[{position}].{at.aspect}"
        lists = _typed_lists(request.inputs[position])
        return f"inputs[{position}].{lists[0] if lists else 'raw'}"

    def wants_lists(self, request: pb.InferRequest) -> bool:
        """Whether any input came in a typed list: an answer has the form of its request."""
        return any(_typed_lists(tensor) for tensor in request.inputs)

    def encode(self, answer: Answer) -> bytes:
        """Return the message that answers a unary call."""
        model, result = answer.model, answer.result
        parts: list[bytes | memoryview] = [_names(model.name, model.version)]
        if answer.request_id:
            parts.append(wire.field(_REQUEST_ID, answer.request_id.encode()))
        for name, array in result.outputs.items():
            if answer.as_lists:
                parts.append(_listed(name, array))
            else:
                raw = tensor_bytes.to_bytes(array)
                parts.append(_tensor(name, array.dtype, array.shape, len(raw)))
                parts.append(raw)
        parts.append(_timing(_microseconds(result.queue_s), _microseconds(result.timing.run_s), result.timing.rows))
        return b"".join(parts)


#: Tags of `InferResponse`, `Tensor` and `InferTiming`.
_REQUEST_ID = wire.tag(pb.InferResponse, "request_id")
_OUTPUTS = wire.tag(pb.InferResponse, "outputs")
_RAW = wire.tag(pb.Tensor, "raw")
_TIMING = wire.tag(pb.InferResponse, "timing")
_QUEUE_US, _RUN_US, _BATCH_ROWS = (
    bytes((wire.tag(pb.InferTiming, name),)) for name in ("queue_us", "run_us", "batch_rows")
)


@lru_cache(maxsize=256)
def _names(model: str, version: str) -> bytes:
    return pb.InferResponse(model=model, version=version).SerializeToString()


@lru_cache(maxsize=1024)
def _tensor(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...], nbytes: int) -> bytes:
    """Write the field of one output up to its elements, which follow as raw bytes."""
    described = _described(name, dtype, shape).SerializeToString()
    head = described + wire.prefix(_RAW, nbytes)
    return wire.prefix(_OUTPUTS, len(head) + nbytes) + head


def _listed(name: str, array: NDArray[np.generic]) -> bytes:
    """Write the field of one output with its elements in a typed list."""
    tensor = _described(name, array.dtype, array.shape)
    field, values = typed_values.to_list(array)
    getattr(tensor, field).extend(values)
    return wire.field(_OUTPUTS, tensor.SerializeToString())


def _described(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> pb.Tensor:
    return pb.Tensor(name=name, datatype=pb.DataType.ValueType(dtypes.BY_NUMPY[dtype].proto), shape=shape)


def _timing(queue_us: int, run_us: int, batch_rows: int) -> bytes:
    varint = wire.varint
    return wire.field(
        _TIMING, b"".join((_QUEUE_US, varint(queue_us), _RUN_US, varint(run_us), _BATCH_ROWS, varint(batch_rows)))
    )


def _timeout_s(request: pb.InferRequest) -> float | None:
    """Return the timeout in seconds; none and 0 are the same, as in the Open Inference Protocol."""
    timeout_s = request.timeout.seconds + request.timeout.nanos / 1e9
    if timeout_s < 0:
        raise InvalidInputError(f"timeout: expected 0 or more seconds, got {timeout_s:g}", field="timeout")
    return timeout_s or None


def _microseconds(duration_s: float) -> int:
    return min(int(duration_s * 1e6), _MAX_UINT32)


def _decode_tensor(tensor: pb.Tensor, spec: TensorSpec, limits: MessageLimits) -> NDArray[np.generic]:
    name = tensor.name
    if tensor.datatype not in (pb.DATA_TYPE_UNSPECIFIED, spec.datatype.proto):
        given = dtypes.BY_PROTO.get(tensor.datatype)
        got = given.name if given else tensor.datatype
        raise tensor_bytes.wrong(name, f"expected datatype {spec.datatype.name}, got {got}", "datatype")
    lists = _typed_lists(tensor)
    # Once: each access to the field makes another copy of the bytes.
    raw = tensor.raw
    if len(lists) + bool(raw) > 1:
        given_fields = (["raw"] if raw else []) + lists
        raise tensor_bytes.wrong(name, f"expected its elements in one field, got {', '.join(given_fields)}")
    if not lists:
        return _decode_raw(tensor, raw, spec, limits)
    flat = _TYPED_LISTS[lists[0]](name, spec.datatype, getattr(tensor, lists[0]))
    return tensor_bytes.shaped(name, flat, _shape(tensor, spec, flat.size))


def _decode_raw(tensor: pb.Tensor, raw: bytes, spec: TensorSpec, limits: MessageLimits) -> NDArray[np.generic]:
    if spec.datatype is BYTES and spec.shape and not tensor.shape:
        raise tensor_bytes.wrong(tensor.name, "expected a shape with raw BYTES, got none", "shape")
    # Elements of BYTES have no size, and their shape has come.
    shape = _shape(tensor, spec, len(raw) // (spec.datatype.itemsize_bytes or 1))
    return tensor_bytes.from_bytes(tensor.name, spec.datatype, shape, raw, limits.elements)


def _shape(tensor: pb.Tensor, spec: TensorSpec, elements: int) -> Sequence[int]:
    """Return the shape that came, or else the one that follows from the number of elements."""
    if tensor.shape or not spec.shape:
        _check_rank(tensor, spec)
        return tensor.shape
    open_axes = [axis for axis, dimension in enumerate(spec.shape) if not isinstance(dimension, int)]
    if len(open_axes) > 1:
        msg = f"expected a shape, because the model leaves {len(open_axes)} dimensions open"
        raise tensor_bytes.wrong(tensor.name, msg, "shape")
    shape = [dimension if isinstance(dimension, int) else 1 for dimension in spec.shape]
    if open_axes:
        shape[open_axes[0]] = elements // (math.prod(shape) or 1)
    return shape


def _typed_lists(tensor: pb.Tensor) -> list[str]:
    """Return the names of the typed lists that hold elements."""
    return [field for field in _TYPED_LISTS if getattr(tensor, field)]


def _check_rank(tensor: pb.Tensor, spec: TensorSpec) -> None:
    if len(tensor.shape) != len(spec.shape):
        msg = f"expected {len(spec.shape)} dimensions, got shape {list(tensor.shape)}"
        raise tensor_bytes.wrong(tensor.name, msg, "shape")


_TYPED_LISTS: Mapping[str, Callable[..., NDArray[np.generic]]] = {
    "bools": typed_values.from_bools,
    "ints": typed_values.from_integers,
    "uints": typed_values.from_integers,
    "floats": typed_values.from_floats,
    "strings": typed_values.from_strings,
    "bytes_values": typed_values.from_byte_strings,
}
