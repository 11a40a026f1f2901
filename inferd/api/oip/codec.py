"""The messages of the Open Inference Protocol, to and from arrays."""

from collections.abc import Callable, Container, Iterable, Mapping
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd import dtypes, wire
from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api import tensors
from inferd.api.admission import DecodedRequest
from inferd.api.codec import RAW, AdmissionTerms, Header, Response, ResponseForm, ShapedTensor, rows_of
from inferd.api.json_text import shown
from inferd.api.oip.classification import CLASSIFICATION, check_classes, classes_wanted, with_classes
from inferd.api.oip.parameters import Parameters, of_message, parameter_path, priority_and_timeout, reject_shared_memory
from inferd.api.wire_scanner import DEFAULT_LIMITS, MessageLimits, WireScanner
from inferd.dtypes import DataType
from inferd.errors import InvalidInputError, Part, Place
from inferd.runtime.signature import ModelSignature, TensorSpec


class TypedTensor(ShapedTensor, Protocol):
    """An input in a request of the Open Inference Protocol, in either of its forms."""

    @property
    def datatype(self) -> str:
        """The name of its datatype."""
        ...


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
        counts = {output.name: classes_wanted(of_message(output.parameters)) for output in request.outputs}
        classes = {name: count for name, count in counts.items() if count}
        return ResponseForm(classes=classes) if classes else RAW

    def timeout_s(self, request: pb.ModelInferRequest) -> float | None:
        """Return the timeout that ``request`` names."""
        return priority_and_timeout(of_message(request.parameters))[1]

    def admission_terms(self, outline: pb.ModelInferRequest, signature: ModelSignature) -> AdmissionTerms:
        """Return what decides the admission of a request whose ``outline`` was parsed."""
        priority, timeout_s = priority_and_timeout(of_message(outline.parameters))
        return AdmissionTerms(priority, timeout_s, rows_of(outline.inputs, signature))

    def decode(self, request: pb.ModelInferRequest, signature: ModelSignature) -> DecodedRequest:
        """Convert ``request`` to arrays of the dtypes and ranks that ``signature`` declares."""
        priority, timeout_s = priority_and_timeout(of_message(request.parameters))
        return DecodedRequest(
            inputs=decode_inputs(request, signature, self._limits),
            outputs=requested_outputs(
                [(output.name, of_message(output.parameters)) for output in request.outputs], signature
            ),
            priority=priority,
            timeout_s=timeout_s,
        )

    def field_of(self, request: pb.ModelInferRequest, at: Place | Part) -> str:
        """Return the path to the field of ``request`` that an error is about."""
        if not isinstance(at, Place):
            return PATHS[at]
        position, path = path_of(at, request.inputs, request.outputs)
        if path:
            return path
        if request.raw_input_contents:
            return f"raw_input_contents[{position}]"
        return ".".join((f"inputs[{position}].contents", *_typed_lists(request.inputs[position])[:1]))

    def encode(self, response: Response) -> bytes:
        """Return the response message."""
        model = response.model
        outputs: Mapping[str, NDArray[np.generic]] = response.result.outputs
        if response.form.classes:
            outputs = with_classes(outputs, response.form.classes, model.require_signature())
        return encode_response(model.name, model.version, response.request_id, outputs)


def encode_response(model: str, version: str, request_id: str, outputs: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the response message, joined from bytes, which is faster than building a message."""
    parts: list[bytes | memoryview] = [_encode_names(model, version)]
    if request_id:
        parts.append(wire.field(_ID, request_id.encode()))
    contents: list[bytes | memoryview] = []
    for name, array in outputs.items():
        parts.append(_encode_output(name, array.dtype, array.shape))
        raw = tensors.to_bytes(array)
        contents.append(wire.prefix(_RAW_OUTPUT, len(raw)))
        contents.append(raw)
    return b"".join(parts + contents)


#: Paths to fields that are no tensors.
PATHS: Mapping[Part, str] = {
    "model": "model_name",
    "inputs": "inputs",
    "priority": parameter_path("priority"),
    "timeout": parameter_path("timeout"),
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


class NamedOutput(Protocol):
    """An output that a request asks for."""

    @property
    def name(self) -> str:
        """The output's name."""
        ...


def path_of(at: Place, inputs: Iterable[ShapedTensor], outputs: Iterable[NamedOutput]) -> tuple[int, str]:
    """Return the position of the tensor that an error is about, and the path to the field of the request.

    The path is empty for the elements of an input, which each transport has in other places.
    """
    if at.kind == "output":
        position = [output.name for output in outputs].index(at.name)
        return position, f"outputs[{position}].name"
    position = [tensor.name for tensor in inputs].index(at.name)
    return position, "" if at.aspect == "elements" else f"inputs[{position}].{at.aspect}"


def requested_outputs(outputs: Iterable[tuple[str, Parameters]], signature: ModelSignature) -> tuple[str, ...]:
    """Return the names of ``outputs``, whose parameters are checked. As in Triton, one may be there several times."""
    classes: list[tuple[str, int]] = []
    for position, (name, parameters) in enumerate(outputs):
        if parameters:
            reject_shared_memory("output", position, name, parameters)
            check_classes(position, name, parameters, signature)
        classes.append((name, classes_wanted(parameters)))
    require_one_form(classes, CLASSIFICATION)
    return tuple(name for name, _ in classes)


def require_one_form(forms: Iterable[tuple[str, int]], parameter: str) -> None:
    """Raise `InvalidInputError` for an output that is there again with another form, the value of ``parameter``."""
    found: dict[str, int] = {}
    for position, (name, form) in enumerate(forms):
        if found.setdefault(name, form) != form:
            msg = (
                f'output "{name}": parameter "{parameter}": expected {shown(found[name])}, as the first time, '
                f"got {shown(form)}"
            )
            raise InvalidInputError(msg, field=f"outputs[{position}].{parameter_path(parameter)}")


def decode_inputs(
    request: pb.ModelInferRequest, signature: ModelSignature, limits: MessageLimits
) -> dict[str, NDArray[np.generic]]:
    """Return the inputs of ``request`` as arrays. Raises `InvalidInputError`."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        msg = f"raw_input_contents: expected one entry for each of {len(request.inputs)} inputs, got {len(raw)}"
        raise InvalidInputError(msg, field="raw_input_contents")
    inputs: dict[str, NDArray[np.generic]] = {}
    for index, tensor in enumerate(request.inputs):
        name = tensor.name
        spec = spec_of(index, tensor, of_message(tensor.parameters), inputs, signature)
        if not raw:
            inputs[name] = _decode_typed(tensor, spec.datatype)
        elif tensor.HasField("contents") and tensor.contents.ByteSize():
            msg = f'input "{name}": expected no contents beside raw_input_contents'
            raise InvalidInputError(msg, field=f"inputs[{index}].contents")
        else:
            inputs[name] = tensors.from_bytes(name, spec.datatype, tensor.shape, raw[index], limits.elements)
    return inputs


def spec_of(
    index: int, tensor: TypedTensor, parameters: Parameters, others: Container[str], signature: ModelSignature
) -> TensorSpec:
    """Return what ``signature`` declares of an input.

    Raises `InvalidInputError` if it is not of the declared datatype and rank, or is among ``others`` already.
    """
    name = tensor.name
    if name in others:
        raise InvalidInputError(f'input "{name}": expected once, got it again', field=f"inputs[{index}].name")
    spec = signature.input(name)
    if parameters:
        reject_shared_memory("input", index, name, parameters)
    if tensor.datatype != spec.datatype.name:
        msg = f'expected datatype {spec.datatype.name}, got "{tensor.datatype}"'
        raise tensors.invalid(name, msg, "datatype")
    if len(tensor.shape) != len(spec.shape):
        msg = f"expected {len(spec.shape)} dimensions, got shape {list(tensor.shape)}"
        raise tensors.invalid(name, msg, "shape")
    return spec


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
    values = getattr(tensor.contents, expected)
    tensors.check_long_list(name, len(values), tensor.shape)
    flat = _CONVERSIONS[expected](name, datatype, values)
    return tensors.shaped(name, flat, tensor.shape)
