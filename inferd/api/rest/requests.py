"""Read inference requests: parse and validate their JSON, and locate their binary data."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.api.json_text import QUICK_BYTES, end_of_object, load, read_object, with_signed_zeros
from inferd.api.oip.parameters import Parameters, parameter_path, reject_shared_memory, type_name
from inferd.api.rest.long_arrays import Array, cut_long_arrays
from inferd.api.wire_scanner import MAX_DIMENSIONS, MAX_PARAMETERS, MAX_TENSORS, Bounds
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from inferd.http.messages import JSON_LENGTH_HEADER, HttpMessage

_SIZE = "binary_data_size"
_MAX_INT64 = 2**63 - 1


@dataclass(slots=True)
class RestInput:
    """An input: its ``data`` as parsed, or an `Array` in the text; or the bounds of its binary data in the body."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters
    data: object = None
    raw: Bounds | None = None


@dataclass(frozen=True, slots=True)
class RestOutput:
    """A requested output."""

    name: str
    parameters: Parameters


@dataclass(slots=True)
class RestRequest:
    """A request whose model is yet to be looked up; ``body`` has its binary data and long arrays."""

    body: memoryview
    model: str
    version: str
    request_id: str
    parameters: Parameters
    inputs: list[RestInput]
    outputs: list[RestOutput]


def read_request(message: HttpMessage) -> RestRequest:
    """Parse an inference request. Raises `InvalidInputError`."""
    body = memoryview(message.body).toreadonly()
    content, arrays = _read_json(body, message.json_length)
    request = _request(message, body, content, arrays)
    _place_binary_data(request.inputs, message.json_length, len(body))
    return request


def outline_of(text: bytes, message: HttpMessage) -> RestRequest:
    """Parse the short JSON ``text`` of a request, whose tensors are left out. Raises `InvalidInputError`."""
    return _request(message, memoryview(text), read_object(text), _LongArrays())


def _request(message: HttpMessage, body: memoryview, content: dict[str, Any], arrays: "_LongArrays") -> RestRequest:
    return RestRequest(
        body=body,
        model=message.path.get("model", ""),
        version=message.path.get("version", ""),
        request_id=_member(content, "id", "", str, "a string", default=""),
        parameters=_parameters(content, ""),
        inputs=_each(content, "inputs", lambda value, path: _input(value, path, arrays)),
        outputs=_each(content, "outputs", _output),
    )


def _read_json(body: memoryview, json_length: int | None) -> tuple[dict[str, Any], "_LongArrays"]:
    if json_length is not None and json_length > len(body):
        raise _wrong_length(f"expected at most {len(body)}, the length of the body in bytes, got {json_length}")
    text = body if json_length is None else body[:json_length]
    arrays = _LongArrays()
    try:
        if len(text) <= QUICK_BYTES:
            return _read_object(bytes(text)), arrays
        rest, arrays.found = cut_long_arrays(text, arrays.mark)
        return _read_object(rest), arrays
    except InvalidInputError:
        end = end_of_object(bytes(body[:QUICK_BYTES]))
        if end is None or not bytes(body[end : end + QUICK_BYTES]).strip() or end == json_length:
            raise
    got = "no such header" if json_length is None else str(json_length)
    raise _wrong_length(f"expected {end}, the length in bytes of the JSON that the body begins with, got {got}")


def _read_object(text: bytes) -> dict[str, Any]:
    """Parse a short ``text``; zeros of floating-point inputs keep their signs."""
    content = read_object(text)
    signed = with_signed_zeros(text)
    if signed is not text and isinstance(content.get("inputs"), list):
        for tensor, other in zip(content["inputs"], load(signed)["inputs"], strict=True):
            if isinstance(tensor, dict) and "data" in tensor and _is_float(tensor.get("datatype")):
                tensor["data"] = other["data"]
    return content


def _is_float(datatype: object) -> bool:
    return isinstance(datatype, str) and datatype in BY_NAME and BY_NAME[datatype].is_float


def _wrong_length(text: str) -> InvalidInputError:
    return InvalidInputError(f"{JSON_LENGTH_HEADER}: {text}", field=JSON_LENGTH_HEADER)


class _LongArrays:
    """The long arrays of a text. Each is replaced by an array with a random mark, which callers cannot guess."""

    __slots__ = ("found", "mark")

    def __init__(self) -> None:
        self.found: list[Array] = []
        self.mark = secrets.token_hex(8)

    def of(self, value: object) -> Array | None:
        """Return the array that ``value`` replaces, or None."""
        if self.found and isinstance(value, list) and len(value) == 2 and value[0] == self.mark:
            return self.found[value[1]]
        return None


def _member(content: dict[str, Any], name: str, path: str, kind: type, expected: str, *, default: Any) -> Any:  # noqa: ANN401
    """Return a member of an object; ``default`` for one that is absent or null, or an error if that is None."""
    value = content.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        got = "nothing" if name not in content else type_name(value)
        raise InvalidInputError(f"{path}{name}: expected {expected}, got {got}", field=f"{path}{name}")
    return value


def _parameters(content: dict[str, Any], path: str) -> Parameters:
    parameters = _member(content, "parameters", path, dict, "an object", default={})
    if len(parameters) > MAX_PARAMETERS:
        msg = f"{path}parameters: expected at most {MAX_PARAMETERS}, got {len(parameters)}"
        raise InvalidInputError(msg, field=f"{path}parameters")
    return {name: value for name, value in parameters.items() if value is not None}


def _each(content: dict[str, Any], name: str, read: Callable[[Any, str], Any]) -> list[Any]:
    values = _member(content, name, "", list, "an array of objects", default=[])
    if len(values) > MAX_TENSORS:
        raise InvalidInputError(f"{name}: expected at most {MAX_TENSORS}, got {len(values)}", field=name)
    for position, value in enumerate(values):
        if not isinstance(value, dict):
            path = f"{name}[{position}]"
            raise InvalidInputError(f"{path}: expected an object, got {type_name(value)}", field=path)
    return [read(value, f"{name}[{position}].") for position, value in enumerate(values)]


def _input(content: dict[str, Any], path: str, arrays: _LongArrays) -> RestInput:
    data = content.get("data")
    return RestInput(
        name=_member(content, "name", path, str, "a string", default=None),
        datatype=_member(content, "datatype", path, str, "a string", default=None),
        shape=_shape(content, path),
        parameters=_parameters(content, path),
        data=arrays.of(data) or data,
    )


def _output(content: dict[str, Any], path: str) -> RestOutput:
    return RestOutput(
        name=_member(content, "name", path, str, "a string", default=None), parameters=_parameters(content, path)
    )


def _shape(content: dict[str, Any], path: str) -> list[int]:
    shape: list[Any] = _member(content, "shape", path, list, "an array of integers", default=None)
    if len(shape) > MAX_DIMENSIONS:
        msg = f"{path}shape: expected at most {MAX_DIMENSIONS} dimensions, got {len(shape)}"
        raise InvalidInputError(msg, field=f"{path}shape")
    for dimension in shape:
        if type(dimension) is not int or not 0 <= dimension <= _MAX_INT64:
            got = dimension if type(dimension) in {int, float} else type_name(dimension)
            msg = f"{path}shape: expected integers from 0 to {_MAX_INT64}, got {got}"
            raise InvalidInputError(msg, field=f"{path}shape")
    return shape


def _place_binary_data(inputs: Sequence[RestInput], json_length: int | None, body_length: int) -> None:
    """Set the bounds of the binary data of each input, in order after the JSON."""
    position = end_of_json = body_length if json_length is None else json_length
    for index, tensor in enumerate(inputs):
        size = tensor.parameters.get(_SIZE)
        if size is None:
            if tensor.data is None:
                reject_shared_memory("input", index, tensor.name, tensor.parameters)
                text = f'input "{tensor.name}": expected data, or binary data and the parameter {_SIZE}, got neither'
                raise InvalidInputError(text, field=f"inputs[{index}].data")
            continue
        field = f"inputs[{index}].{parameter_path(_SIZE)}"
        text = _wrong_size(tensor, size)
        if text:
            raise InvalidInputError(f'input "{tensor.name}": {text}', field=field)
        if json_length is None:
            raise _wrong_length(
                f'expected the length of the JSON in bytes, because input "{tensor.name}" has a {_SIZE}, '
                "got no such header"
            )
        tensor.raw = (position, position + size)
        position += size
    if position != body_length:
        msg = (
            f"the body: expected {position - end_of_json} bytes after the JSON, the sum of the {_SIZE} of its "
            f"inputs, got {body_length - end_of_json}"
        )
        raise InvalidInputError(msg, field="inputs")


def _wrong_size(tensor: RestInput, size: object) -> str:
    if tensor.data is not None:
        return f"expected data or a {_SIZE}, got both"
    if type(size) is not int or size < 0:
        return f"{_SIZE}: expected an integer of 0 or more, got {size if type(size) is int else type_name(size)}"
    return ""
