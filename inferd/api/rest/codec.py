"""Convert requests and answers of the Open Inference Protocol over HTTP to and from arrays."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from inferd.api import tensors
from inferd.api.admission import DecodedRequest
from inferd.api.codec import RAW, AdmissionTerms, Header, Response, ResponseForm, rows_of
from inferd.api.oip.classification import classes_wanted
from inferd.api.oip.codec import PATHS, path_of, requested_outputs, require_one_form, spec_of
from inferd.api.oip.parameters import boolean, parameter_path, priority_and_timeout, type_name
from inferd.api.rest.encoder import encode
from inferd.api.rest.json_data import from_data, from_long_array
from inferd.api.rest.long_arrays import Array
from inferd.api.rest.requests import RestInput, RestRequest
from inferd.api.wire_scanner import DEFAULT_LIMITS, MessageLimits
from inferd.dtypes import DataType
from inferd.errors import InvalidInputError, Part, Place
from inferd.http.messages import HttpBody
from inferd.runtime.signature import ModelSignature

_ALL_BINARY = "binary_data_output"
_BINARY = "binary_data"

#: The usual form in JSON.
_JSON = ResponseForm(as_lists=True)

#: The path of the address has the model.
_PATHS: Mapping[Part, str] = {**PATHS, "model": "model"}


class RestCodec:
    """The bodies of inference requests and answers; see `Codec`."""

    def __init__(self, limits: MessageLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    def header(self, request: RestRequest) -> Header:
        """Return the model that ``request`` asks for, and its id."""
        return Header(request.model, request.version, request.request_id)

    def form(self, request: RestRequest) -> ResponseForm:
        """Return the form of the answer to ``request``: JSON, except for outputs requested as binary data."""
        if not request.outputs:
            return RAW if request.parameters.get(_ALL_BINARY) is True else _JSON
        classes = {output.name: count for output in request.outputs if (count := classes_wanted(output.parameters))}
        raw = {name for name, is_raw in _wanted_raw(request) if is_raw}
        as_lists = len(raw) < len({output.name for output in request.outputs})
        if classes or (raw and as_lists):
            return ResponseForm(as_lists=as_lists, classes=classes, raw=frozenset(raw) if as_lists else frozenset())
        return _JSON if as_lists else RAW

    def timeout_s(self, request: RestRequest) -> float | None:
        """Return the timeout that ``request`` names."""
        return priority_and_timeout(request.parameters)[1]

    def admission_terms(self, outline: RestRequest, signature: ModelSignature) -> AdmissionTerms:
        """Return the priority, timeout and rows of a request whose ``outline`` was parsed."""
        priority, timeout_s = priority_and_timeout(outline.parameters)
        return AdmissionTerms(priority, timeout_s, rows_of(outline.inputs, signature))

    def decode(self, request: RestRequest, signature: ModelSignature) -> DecodedRequest:
        """Convert ``request`` to arrays of the dtypes and ranks that ``signature`` declares."""
        priority, timeout_s = priority_and_timeout(request.parameters)
        if _ALL_BINARY in request.parameters:
            boolean(_ALL_BINARY, request.parameters[_ALL_BINARY])
        inputs = self._inputs(request, signature)
        for position, output in enumerate(request.outputs):
            _check_binary(position, output.name, output.parameters.get(_BINARY, False))
        require_one_form(_wanted_raw(request), _BINARY)
        outputs = requested_outputs([(output.name, output.parameters) for output in request.outputs], signature)
        return DecodedRequest(inputs=inputs, outputs=outputs, priority=priority, timeout_s=timeout_s)

    def field_of(self, request: RestRequest, at: Place | Part) -> str:
        """Return the path to the field of ``request`` that an error is about."""
        if not isinstance(at, Place):
            return _PATHS[at]
        position, path = path_of(at, request.inputs, request.outputs)
        if path:
            return path
        is_json = request.inputs[position].raw is None
        return f"inputs[{position}]." + ("data" if is_json else parameter_path("binary_data_size"))

    def encode(self, response: Response) -> HttpBody:
        """Return the body of an answer."""
        return encode(response)

    def _inputs(self, request: RestRequest, signature: ModelSignature) -> dict[str, NDArray[np.generic]]:
        inputs: dict[str, NDArray[np.generic]] = {}
        left = self._limits.elements
        for index, tensor in enumerate(request.inputs):
            spec = spec_of(index, tensor, tensor.parameters, inputs, signature)
            if tensor.raw is not None:
                start, end = tensor.raw
                raw = request.body[start:end]
                inputs[tensor.name] = tensors.from_bytes(
                    tensor.name, spec.datatype, tensor.shape, raw, self._limits.elements
                )
                continue
            left -= tensors.element_count(tensor.name, tensor.shape)
            if left < 0:
                raise tensors.invalid(
                    tensor.name,
                    f"expected at most {self._limits.elements} elements in the data of all inputs, got more; "
                    "send the tensor as binary data (binary_data_size) instead",
                )
            inputs[tensor.name] = _from_json(request, tensor, spec.datatype)
        return inputs


def _from_json(request: RestRequest, tensor: RestInput, datatype: DataType) -> NDArray[np.generic]:
    if isinstance(tensor.data, Array):
        return from_long_array(tensor.name, datatype, tensor.shape, request.body, tensor.data)
    return from_data(tensor.name, datatype, tensor.shape, tensor.data)


def _wanted_raw(request: RestRequest) -> Iterator[tuple[str, bool]]:
    """Yield the name of each requested output, and whether it is requested as binary data."""
    otherwise = request.parameters.get(_ALL_BINARY) is True
    return ((output.name, output.parameters.get(_BINARY, otherwise) is True) for output in request.outputs)


def _check_binary(position: int, name: str, value: object) -> None:
    if not isinstance(value, bool):
        msg = f'output "{name}": parameter "{_BINARY}": expected a boolean, got {type_name(value)}'
        raise InvalidInputError(msg, field=f"outputs[{position}].{parameter_path(_BINARY)}")
