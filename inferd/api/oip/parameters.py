"""The parameters of requests, of their inputs and of their outputs, over gRPC and in JSON."""

from collections.abc import Mapping
from typing import Any, Literal

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.errors import InvalidInputError
from inferd.plain_text import clipped

#: What parameters have for values. Values of other types, and arrays and objects of JSON, belong to no parameter that
#: is known here.
Parameters = Mapping[str, Any]

#: Reserved parameters for models with state, which inferd does not serve, and the types they may have.
_STATE_PARAMETERS: Mapping[str, tuple[type, ...]] = {
    "sequence_id": (int, str),
    "sequence_start": (bool,),
    "sequence_end": (bool,),
}
#: From here on, readers of JSON make floats of integers; exact ones are below.
_LEAST_BEYOND = 2.0**63
_TRITON_PREFIX = "triton_"
_EMPTY_FINAL_RESPONSE = "triton_enable_empty_final_response"

_TYPE_NAMES: Mapping[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a fraction",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def of_message(parameters: Mapping[str, pb.InferParameter]) -> Parameters:
    """Return the values of those parameters of a message that have one."""
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            values[name] = getattr(parameter, choice)
    return values


def is_beyond_64_bits(value: object) -> bool:
    """Return whether ``value`` was an integer beyond 64 bits in JSON, or is a number as large."""
    return isinstance(value, float) and abs(value) >= _LEAST_BEYOND


def type_name(value: object) -> str:
    """Return what to call the type of a value in an error."""
    if is_beyond_64_bits(value):
        return "a number beyond 64 bits"
    return _TYPE_NAMES.get(type(value), "another type")


def integer(name: str, value: object) -> int:
    """Return the value of a parameter that is an integer. Raises `InvalidInputError` for any other."""
    # Booleans are integers in Python only.
    if type(value) is not int:
        raise invalid_parameter(name, f"expected an integer, got {type_name(value)}")
    return value


def boolean(name: str, value: object) -> bool:
    """Return the value of a parameter that is a boolean. Raises `InvalidInputError` for any other."""
    if not isinstance(value, bool):
        raise invalid_parameter(name, f"expected a boolean, got {type_name(value)}")
    return value


def priority_and_timeout(parameters: Parameters) -> tuple[int, float | None]:
    """Return the priority (0 for none) and the timeout in seconds. Raises for parameters that would be ignored.

    A parameter with its null value counts as absent: 0 for ``sequence_id``, ``priority`` and ``timeout``, false for
    ``sequence_start`` and ``sequence_end``.
    """
    priority, timeout_s = 0, None
    for name, value in parameters.items():
        if name == "priority":
            priority = integer(name, value)
        elif name == "timeout":
            timeout_us = integer(name, value)
            if timeout_us < 0:
                raise invalid_parameter(name, f"expected 0 or more microseconds, got {timeout_us}")
            timeout_s = timeout_us / 1e6 or None
        elif name in _STATE_PARAMETERS:
            _reject_state(name, value)
        elif name.startswith(_TRITON_PREFIX) and name != _EMPTY_FINAL_RESPONSE:
            raise invalid_parameter(name, "no such reserved parameter")
    return priority, timeout_s


def _reject_state(name: str, value: object) -> None:
    types = _STATE_PARAMETERS[name]
    if type(value) not in types:
        expected = " or ".join(_TYPE_NAMES[each] for each in types)
        raise invalid_parameter(name, f"expected {expected}, got {type_name(value)}")
    if value:
        raise invalid_parameter(name, "models with state are not supported")


def invalid_parameter(name: str, text: str) -> InvalidInputError:
    """Return the error that says ``text`` about a parameter of the request."""
    return InvalidInputError(f'parameter "{name}": {text}', field=parameter_path(name))


def parameter_path(name: str) -> str:
    """Return the path to a parameter from what it belongs to."""
    return f'parameters["{clipped(name)}"]'


def reject_shared_memory(kind: Literal["input", "output"], position: int, name: str, parameters: Parameters) -> None:
    """Raise `InvalidInputError` if a tensor is to be in shared memory."""
    for parameter, value in parameters.items():
        # Some clients write every field they know: no region, no offset.
        if value and parameter.startswith("shared_memory"):
            msg = f'{kind} "{name}": parameter "{parameter}" is not supported'
            raise InvalidInputError(msg, field=f"{kind}s[{position}].{parameter_path(parameter)}")
