"""The messages of the Open Inference Protocol, to and from arrays."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from inferd import dtypes, wire
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api import tensors
from inferd.api.admission import DecodedRequest
from inferd.api.codec import RAW, Header, Response, ResponseForm, Terms, rows_of
from inferd.api.oip.classification import check_classes, classes_wanted, with_classes
from inferd.api.wire_scanner import DEFAULT_LIMITS, MessageLimits, WireScanner
from inferd.dtypes import DataType
from inferd.errors import InvalidInputError, Part, Place
from inferd.plain_text import clipped
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Reserved parameters for models with state, which inferd does not serve, and the types they may have.
_STATE_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "sequence_id": ("int64_param", "uint64_param", "string_param"),
    "sequence_start": ("bool_param",),
    "sequence_end": ("bool_param",),
}
_TRITON_PREFIX = "triton_"
_EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"


class OpenInferenceCodec:
    """The messages of ``ModelInfer`` and ``ModelStreamInfer``; see `Codec`."""

    request_type = pb.ModelInferRequest

    def __init__(self, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self.scanner = WireScanner(
            pb.ModelInferRequest.DESCRIPTOR,
            raw=frozenset({"inference.ModelInferRequest.raw_input_contents"}),
            request_id="inference.ModelInferRequest.id",
            lists=frozenset({"inference.InferTensorContents"}),
            limits=limits,
        )

    def header(self, request: pb.ModelInferRequest) -> Header:
        """Return which model ``request`` asks for, and its id."""
        return Header(request.model_name, request.model_version, request.id)

    def form(self, request: pb.ModelInferRequest) -> ResponseForm:
        """Return raw, as C++ clients need it, or the classes that are asked for."""
        if not request.outputs:
            return RAW
        counts = {output.name: classes_wanted(output) for output in request.outputs}
        classes = {name: count for name, count in counts.items() if count}
        return ResponseForm(classes=classes) if classes else RAW

    def timeout_s(self, request: pb.ModelInferRequest) -> float | None:
        """Return the timeout that ``request`` names."""
        return _parameters(request)[1]

    def terms(self, outline: pb.ModelInferRequest, signature: ModelSignature) -> Terms:
        """Return the terms of a request whose ``outline`` was parsed."""
        priority, timeout_s = _parameters(outline)
        return Terms(priority, timeout_s, rows_of(outline.inputs, signature))

    def decode(self, request: pb.ModelInferRequest, signature: ModelSignature) -> DecodedRequest:
        """Convert ``request`` to arrays of the dtypes and ranks that ``signature`` declares."""
        priority, timeout_s = _parameters(request)
        return DecodedRequest(
            inputs=_decode_inputs(request, signature, self._limits),
            outputs=_requested_outputs(request, signature),
            priority=priority,
            timeout_s=timeout_s,
        )

    def field_of(self, request: pb.ModelInferRequest, at: Place | Part) -> str:
        """Return the path to the field of ``request`` that an error is about."""
        if not isinstance(at, Place):
            return _PATHS[at]
        if at.kind == "output":
            return f"outputs[{[output.name for output in request.outputs].index(at.name)}].name"
        position = [tensor.name for tensor in request.inputs].index(at.name)
        if at.aspect != "elements":
            return f"inputs[{position}].{at.aspect}"
        if request.raw_input_contents:
            return f"raw_input_contents[{position}]"
        return ".".join((f"inputs[{position}].contents", *_typed_lists(request.inputs[position])[:1]))

    def encode(self, response: Response) -> bytes:
        """Return the response message, joined from bytes, which is faster than building a message."""
        model = response.model
        parts: list[bytes | memoryview] = [_encode_names(model.name, model.version)]
        if response.request_id:
            parts.append(wire.field(_ID, response.request_id.encode()))
        contents: list[bytes | memoryview] = []
        outputs: Mapping[str, NDArray[np.generic]] = response.result.outputs
        if response.form.classes:
            outputs = with_classes(outputs, response.form.classes, model.require_signature())
        for name, array in outputs.items():
            parts.append(_encode_output(name, array.dtype, array.shape))
            raw = tensors.to_bytes(array)
            contents.append(wire.prefix(_RAW_OUTPUT, len(raw)))
            contents.append(raw)
        return b"".join(parts + contents)


_PATHS: Mapping[Part, str] = {
    "model": "model_name",
    "inputs": "inputs",
    "priority": 'parameters["priority"]',
    "timeout": 'parameters["timeout"]',
}

#: Tags of `ModelInferResponse`.
_ID = wire.tag(pb.ModelInferResponse, "id")
_RAW_OUTPUT = wire.tag(pb.ModelInferResponse, "raw_output_contents")


@lru_cache(maxsize=256)
def _encode_names(model: str, version: str) -> bytes:
    return pb.ModelInferResponse(model_name=model, model_version=version).SerializeToString()


@lru_cache(maxsize=1024)
def _encode_output(name: str, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> bytes:
    """Encode the field that describes one output."""
    response = pb.ModelInferResponse()
    response.outputs.add(name=name, datatype=dtypes.BY_NUMPY[dtype].name, shape=shape)
    return response.SerializeToString()


def _parameters(request: pb.ModelInferRequest) -> tuple[int, float | None]:
    """Return the priority (0 for none) and the timeout in seconds. Raises for parameters that would be ignored.

    A parameter without a value, or with its null value, counts as absent: 0 for ``sequence_id``, ``priority`` and
    ``timeout``, false for ``sequence_start`` and ``sequence_end``.
    """
    priority, timeout_s = 0, None
    for name, value in request.parameters.items():
        if value.WhichOneof("parameter_choice") is None:
            continue
        if name == "priority":
            priority = _integer(name, value)
        elif name == "timeout":
            timeout_us = _integer(name, value)
            if timeout_us < 0:
                raise _invalid_parameter(name, f"expected 0 or more microseconds, got {timeout_us}")
            timeout_s = timeout_us / 1e6 or None
        elif name in _STATE_PARAMETERS:
            _reject_state(name, value)
        elif name.startswith(_TRITON_PREFIX) and name != _EMPTY_FINAL_RESPONSE:
            raise _invalid_parameter(name, "no such reserved parameter")
    return priority, timeout_s


def _reject_state(name: str, value: pb.InferParameter) -> None:
    choice = value.WhichOneof("parameter_choice")
    types = _STATE_PARAMETERS[name]
    if choice not in types:
        raise _invalid_parameter(name, f"expected {' or '.join(types)}, got {choice}")
    if getattr(value, choice):
        raise _invalid_parameter(name, "models with state are not supported")


def _integer(name: str, value: pb.InferParameter) -> int:
    kind = value.WhichOneof("parameter_choice")
    if kind == "int64_param":
        return value.int64_param
    if kind == "uint64_param":
        return value.uint64_param
    raise _invalid_parameter(name, f"expected int64_param or uint64_param, got {kind}")


def _invalid_parameter(name: str, text: str) -> InvalidInputError:
    return InvalidInputError(f'parameter "{name}": {text}', field=_parameter_path(name))


def _parameter_path(name: str) -> str:
    return f'parameters["{clipped(name)}"]'


def _requested_outputs(request: pb.ModelInferRequest, signature: ModelSignature) -> tuple[str, ...]:
    for position, output in enumerate(request.outputs):
        if output.parameters:
            _reject_tensor_parameters("output", position, output.name, output.parameters)
            check_classes(position, output, signature)
    return tuple(output.name for output in request.outputs)


def _reject_tensor_parameters(
    kind: Literal["input", "output"], position: int, name: str, parameters: Mapping[str, pb.InferParameter]
) -> None:
    for parameter, value in parameters.items():
        if not parameter.startswith("shared_memory"):
            continue
        choice = value.WhichOneof("parameter_choice")
        # Some clients write every field they know: no region, no offset.
        if choice is not None and getattr(value, choice):
            msg = f'{kind} "{name}": parameter "{parameter}" is not supported'
            raise InvalidInputError(msg, field=f"{kind}s[{position}].{_parameter_path(parameter)}")


def _decode_inputs(
    request: pb.ModelInferRequest, signature: ModelSignature, limits: MessageLimits
) -> dict[str, NDArray[np.generic]]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        msg = f"raw_input_contents: expected one entry for each of {len(request.inputs)} inputs, got {len(raw)}"
        raise InvalidInputError(msg, field="raw_input_contents")
    inputs: dict[str, NDArray[np.generic]] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        if name in inputs:
            raise InvalidInputError(f'input "{name}": expected once, got it again', field=f"inputs[{index}].name")
        spec = signature.input(name)
        if tensor.parameters:
            _reject_tensor_parameters("input", index, name, tensor.parameters)
        _check_tensor(tensor, spec)
        if not raw:
            inputs[name] = _decode_typed(tensor, spec.datatype)
        elif tensor.HasField("contents") and tensor.contents.ByteSize():
            msg = f'input "{name}": expected no contents beside raw_input_contents'
            raise InvalidInputError(msg, field=f"inputs[{index}].contents")
        else:
            inputs[name] = tensors.from_bytes(name, spec.datatype, tensor.shape, raw[index], limits.elements)
    return inputs


def _check_tensor(tensor: pb.ModelInferRequest.InferInputTensor, spec: TensorSpec) -> None:
    name = tensor.name
    if tensor.datatype != spec.datatype.name:
        msg = f'expected datatype {spec.datatype.name}, got "{tensor.datatype}"'
        raise tensors.invalid(name, msg, "datatype")
    if len(tensor.shape) != len(spec.shape):
        msg = f"expected {len(spec.shape)} dimensions, got shape {list(tensor.shape)}"
        raise tensors.invalid(name, msg, "shape")


_CONVERSIONS: Mapping[str, Callable[..., NDArray[np.generic]]] = {
    "bool_contents": tensors.from_bools,
    "int_contents": tensors.from_integers,
    "int64_contents": tensors.from_integers,
    "uint_contents": tensors.from_integers,
    "uint64_contents": tensors.from_integers,
    "fp32_contents": tensors.from_floats,
    "fp64_contents": tensors.from_floats,
    "bytes_contents": tensors.from_byte_strings,
}


def _typed_lists(tensor: pb.ModelInferRequest.InferInputTensor) -> list[str]:
    """Return the names of the typed lists that hold elements."""
    return [field for field in _CONVERSIONS if getattr(tensor.contents, field)]


def _decode_typed(tensor: pb.ModelInferRequest.InferInputTensor, datatype: DataType) -> NDArray[np.generic]:
    name = tensor.name
    expected = dtypes.TYPED_LISTS.get(datatype.name)
    if expected is None:
        raise tensors.invalid(name, f"expected {datatype.name} in raw_input_contents")
    given = _typed_lists(tensor)
    if given not in ([], [expected]):
        raise tensors.invalid(name, f"expected {datatype.name} in {expected}, got {', '.join(given)}")
    flat = _CONVERSIONS[expected](name, datatype, getattr(tensor.contents, expected))
    return tensors.shaped(name, flat, tensor.shape)
