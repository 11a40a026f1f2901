"""Recorded requests of a model, in a file ``examples.json`` or ``examples.npz`` beside it.

A JSON file has one request or a list of them. A request is an object with the inputs by name, or a request body of the
Open Inference Protocol's REST API: ``{"inputs": [{"name", "shape", "datatype", "data"}]}``. An ``.npz`` file has one
array per input, named NAME, for one request, or ``0/NAME``, ``1/NAME`` and so on for several.

`files` reads the files, `arrays` converts single inputs. A leaf: any module may import it, and it imports only numpy
and the element types.
"""

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inferd.plain_text import clipped
from inferd.recorded_requests.arrays import (
    Array,
    InputForm,
    MismatchError,
    cast,
    convert,
    flatten,
    from_json,
    naming_input,
    quote,
    reshape,
    shape_text,
    with_batch_axis,
)
from inferd.recorded_requests.files import parse_json, read_requests

__all__ = ["FILE_NAMES", "InputForm", "RecordedRequestsError", "find", "from_json", "parse_json", "read"]

#: Names of the file.
FILE_NAMES = ("examples.npz", "examples.json")

#: Keys of a request body; all but the inputs are ignored.
_BODY_KEYS = frozenset({"id", "inputs", "outputs", "parameters"})


class RecordedRequestsError(ValueError):
    """A file with recorded requests is invalid.

    The message has the file's name without its directory and, if known, the number of the request, counted from 0, the
    input, what was expected and what was found.
    """


def find(folder: Path) -> Path | None:
    """Return the file with recorded requests in ``folder``, or None.

    Raises:
        RecordedRequestsError: There are two.
    """
    # A dangling link counts, so that reading it reports the error.
    found = [folder / name for name in FILE_NAMES if os.path.lexists(folder / name)]
    if len(found) > 1:
        msg = f"expected either {' or '.join(FILE_NAMES)}, got both"
        raise RecordedRequestsError(msg)
    return found[0] if found else None


def read(path: Path, forms: Sequence[InputForm], *, loose_dimensions: Collection[str] = ()) -> list[dict[str, Array]]:
    """Read all requests of a file: for each, arrays of the declared types by input name.

    BYTES arrays are ``object`` arrays of ``bytes``. ``forms`` are all inputs of the model. ``loose_dimensions`` are
    names of dynamic dimensions that may differ between the inputs of a request.

    Raises:
        RecordedRequestsError: The file cannot be read, is empty, or has a request that does not match ``forms``.
    """
    by_name = {form.name: form for form in forms}
    requests: list[dict[str, Array]] = []
    origin = path.name
    try:
        for number, recorded in enumerate(read_requests(path, by_name)):
            origin = f"{path.name}: request {number}"
            request = _npz_request(by_name, recorded) if path.suffix == ".npz" else _json_request(by_name, recorded)
            _require_complete(forms, request)
            _require_agreement(forms, request, loose_dimensions)
            requests.append(request)
    except ValueError as error:
        msg = f"{origin}: {error}"
        raise RecordedRequestsError(msg) from None
    except OSError as error:
        msg = f"{origin}: cannot be read: {error.strerror or error}"
        raise RecordedRequestsError(msg) from None
    return requests


def _json_request(forms: Mapping[str, InputForm], recorded: object) -> dict[str, Array]:
    if not isinstance(recorded, dict):
        msg = f"expected an object with the inputs by name, got {quote(recorded)}"
        raise ValueError(msg)  # noqa: TRY004  (the file is wrong, not the program)
    if _is_body(forms, recorded):
        return _body_request(forms, recorded)
    return {name: from_json(_form(forms, name), value) for name, value in recorded.items()}


def _is_body(forms: Mapping[str, InputForm], recorded: Mapping[str, object]) -> bool:
    """Whether ``recorded`` is a request body. A model may have an input named ``inputs``, but none of objects."""
    inputs = recorded.get("inputs")
    if not isinstance(inputs, list):
        return False
    return "inputs" not in forms or any(isinstance(tensor, dict) for tensor in inputs)


def _body_request(forms: Mapping[str, InputForm], body: Mapping[str, Any]) -> dict[str, Array]:
    unknown = next((key for key in body if key not in _BODY_KEYS), None)
    if unknown is not None:
        msg = f"expected {', '.join(sorted(_BODY_KEYS))} only, got {quote(unknown)}"
        raise ValueError(msg)
    request: dict[str, Array] = {}
    for tensor in body["inputs"]:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            msg = f"inputs: expected objects with a name, got {quote(tensor)}"
            raise ValueError(msg)  # noqa: TRY004  (as above)
        if name in request:
            msg = f"input {quote(name)}: expected it once, got it again"
            raise ValueError(msg)
        form = _form(forms, name)
        with naming_input(form):
            request[name] = _of_tensor(form, tensor)
    return request


def _of_tensor(form: InputForm, tensor: Mapping[str, Any]) -> Array:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if datatype != form.datatype.name:
        raise MismatchError(f"expected datatype {form.datatype.name}, got {quote(datatype)}")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise MismatchError(f"expected a shape, a list of integers, got {quote(shape)}")
    if "data" not in tensor:
        raise MismatchError("expected data, got none")
    elements, nested = flatten(tensor["data"])
    is_flat = len(nested) <= 1 and len(elements) == math.prod(shape)
    if not is_flat and nested != tuple(shape):
        raise MismatchError(f"expected data for shape {clipped(str(shape))}, got data of shape {list(nested)}")
    return reshape(form, convert(form.datatype, elements), tuple(shape))


def _npz_request(forms: Mapping[str, InputForm], recorded: Mapping[str, Array]) -> dict[str, Array]:
    request: dict[str, Array] = {}
    for name, array in recorded.items():
        form = _form(forms, name)
        with naming_input(form):
            request[name] = reshape(form, cast(form.datatype, array), with_batch_axis(form, array.shape))
    return request


def _form(forms: Mapping[str, InputForm], name: str) -> InputForm:
    form = forms.get(name)
    if form is None:
        msg = f"input {quote(name)}: the model has no such input, it has {', '.join(forms) or 'none'}"
        raise ValueError(msg)
    return form


def _require_complete(forms: Sequence[InputForm], request: Mapping[str, Array]) -> None:
    for form in forms:
        if form.name not in request and not form.optional:
            msg = f'input "{form.name}": expected {form.datatype.name} {shape_text(form.shape)}, got no such input'
            raise ValueError(msg)


def _require_agreement(forms: Sequence[InputForm], request: Mapping[str, Array], loose: Collection[str]) -> None:
    """Reject inputs with different numbers of rows, or different sizes of a dimension of the same name."""
    # Size and first input of each dimension by name; None is the batch axis.
    seen: dict[str | None, tuple[int, str]] = {}
    for form in forms:
        if form.name not in request:
            continue
        for dimension, size in _named_sizes(form, request[form.name].shape, loose):
            expected, first = seen.setdefault(dimension, (size, form.name))
            if dimension is None and expected == 0:
                msg = f'input "{form.name}": expected at least 1 row, got none'
                raise ValueError(msg)
            if size != expected:
                what = f"{expected} rows" if dimension is None else f"{dimension} = {expected}"
                msg = f'input "{form.name}": expected {what} as in input "{first}", got {size}'
                raise ValueError(msg)


def _named_sizes(form: InputForm, shape: tuple[int, ...], loose: Collection[str]) -> Iterator[tuple[str | None, int]]:
    """Yield the sizes that must match between inputs by dimension name; None is the batch axis."""
    for axis, (declared, size) in enumerate(zip(form.shape, shape, strict=True)):
        if axis == form.batch_axis:
            yield None, size
        elif isinstance(declared, str) and declared not in loose:
            yield declared, size
