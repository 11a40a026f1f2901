"""Requests to a model that somebody has recorded, in a file ``examples.json`` or ``examples.npz`` beside it.

JSON holds one request or a list of them. A request is an object with the inputs by their names, or the body of a
request of the Open Inference Protocol over REST: ``{"inputs": [{"name", "shape", "datatype", "data"}]}``. In an
``.npz`` file an array for each input, by its name, is one request; several are named ``0/NAME``, ``1/NAME`` and so on.

A leaf: everyone may import it, and it imports numpy and the element types only.
"""

import json
import math
import os
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inferd.dtypes import BYTES, DataType
from inferd.small_files import open_file, read_bytes

Array = NDArray[np.generic]

#: What the file beside a model may be called.
FILE_NAMES = ("examples.npz", "examples.json")

#: The types that JSON's values have here, by numpy's kind of what they become; those of other kinds are floats.
_ACCEPTED: Mapping[str, frozenset[type]] = {
    "O": frozenset({str}),
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
}
_NUMBERS: frozenset[type] = frozenset({int, float})

#: No model declares more; YAML, unlike JSON, has lists that hold themselves.
_MOST_DIMENSIONS = 64
_MOST_CHARACTERS_SHOWN = 80

#: Of all requests together. A few are enough, and all of them are kept in memory.
_MOST_BYTES = 256 * 1024 * 1024

#: What the body of a request may have beside its inputs, and which changes nothing for a model.
_BODY_KEYS = frozenset({"id", "inputs", "outputs", "parameters"})
_NUMBERED_KEY = re.compile(r"(0|[1-9][0-9]{0,8})/(.+)", re.DOTALL)


class RecordedRequestsError(ValueError):
    """A file with recorded requests that cannot be used.

    The text names the file without its folders and, as far as they are known, the request's number, counted from 0, the
    input, what was expected and what came.
    """


@dataclass(frozen=True, slots=True)
class InputForm:
    """What an array must be like to be one input of a model.

    ``shape`` has an ``int`` for a fixed dimension, a ``str`` for an open one with a name and ``None`` for one without.
    ``batch_axis`` is the dimension that counts rows, or None where there is none or it is not known yet. An input that
    is ``optional`` may be left out of requests.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str | None, ...]
    batch_axis: int | None
    optional: bool


def find(folder: Path) -> Path | None:
    """Return the file with recorded requests in ``folder``, or None.

    Raises:
        RecordedRequestsError: There are two, and no way to tell which counts.
    """
    # A link that leads nowhere counts, so that somebody learns of it.
    found = [folder / name for name in FILE_NAMES if os.path.lexists(folder / name)]
    if len(found) > 1:
        msg = f"expected either {' or '.join(FILE_NAMES)}, got both"
        raise RecordedRequestsError(msg)
    return found[0] if found else None


def read(path: Path, forms: Sequence[InputForm], *, loose_dimensions: Collection[str] = ()) -> list[dict[str, Array]]:
    """Read all requests of a file, each an array of the declared type for each input that it gives.

    BYTES arrays are ``object`` arrays of ``bytes``. ``forms`` are all inputs of the model, and ``loose_dimensions``
    names of open dimensions on which the inputs of a request need not agree.

    Raises:
        RecordedRequestsError: The file cannot be read, holds no requests, or one that does not fit ``forms``.
    """
    by_name = {form.name: form for form in forms}
    requests: list[dict[str, Array]] = []
    origin = path.name
    try:
        for number, recorded in enumerate(_recorded(path, by_name)):
            origin = f"{path.name}: request {number}"
            request = _of_arrays(by_name, recorded) if path.suffix == ".npz" else _of_json(by_name, recorded)
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


def from_json(form: InputForm, value: object) -> Array:
    """Make an array of ``value``, a number, text or boolean or lists of them, as parsers of JSON and YAML give them.

    Where the batch axis is known, a value with one dimension less than declared is taken to be a single row, and gets
    the batch dimension.

    Raises:
        ValueError: Elements are not of the declared type or beyond its range, lists do not line up, or the shape is not
            what is declared; the text names the input.
    """
    with _naming(form):
        elements, shape = _flattened(value)
        flat = _converted(form.datatype, elements)
        return _shaped(form, flat, _with_rows(form, shape))


def parse_json(text: str) -> object:
    """Read JSON, in which no key of an object may be there twice. NaN and Infinity are numbers.

    Raises:
        ValueError: It is something else, or nested too deeply; the text says where.
    """
    try:
        return json.loads(text, parse_float=_finite, object_pairs_hook=_unique)
    except ValueError as error:
        msg = f"expected JSON, got something else: {error}"
        raise ValueError(msg) from None
    except RecursionError:
        msg = "expected JSON, got values that are nested too deeply"
        raise ValueError(msg) from None


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        msg = f"{_cut(text)} is beyond the range of FP64"
        raise ValueError(msg)
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        msg = f"key {_shown(next(key for key in keys if keys.count(key) > 1))} is there twice"
        raise ValueError(msg)
    return values


# Files to requests that are not looked at yet.


def _recorded(path: Path, forms: Mapping[str, InputForm]) -> Sequence[Any]:
    """Return the requests of a file as they are recorded. Raises ValueError or OSError."""
    match path.suffix:
        case ".json":
            requests = _json_requests(read_bytes(path, _MOST_BYTES))
        case ".npz":
            requests = _split(_arrays(path), forms)
        case _:
            msg = "expected a file that is called .json or .npz"
            raise ValueError(msg)
    if not requests:
        msg = "expected requests, got none"
        raise ValueError(msg)
    return requests


def _json_requests(content: bytes) -> Sequence[Any]:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        msg = f"expected JSON in UTF-8, got other bytes: {error}"
        raise ValueError(msg) from None
    if not text.strip():
        return []
    value = parse_json(text)
    return value if isinstance(value, list) else [value]


def _arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file by their names."""
    arrays: dict[str, Array] = {}
    # Not by np.load, which lets entries pass that are no arrays, are there twice or have a wrong checksum.
    with open_file(path) as file, _archive(file) as archive:
        entries = archive.infolist()
        # What is packed may come to a thousand times the file.
        nbytes = sum(entry.file_size for entry in entries)
        if nbytes > _MOST_BYTES:
            msg = f"expected arrays of at most {_MOST_BYTES} bytes, got {nbytes}"
            raise ValueError(msg)
        for entry in entries:
            if entry.is_dir():
                continue
            name = entry.filename.removesuffix(".npy")
            if name == entry.filename:
                msg = f"expected entries that are called .npy, got {_shown(name)}"
                raise ValueError(msg)
            if name in arrays:
                msg = f"expected each entry once, got {_shown(entry.filename)} again"
                raise ValueError(msg)
            arrays[name] = _array(archive, entry)
    return arrays


def _archive(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  (a damaged archive can fail in any way, and all mean the same)
        msg = f"expected an archive of arrays, got something else: {_reason(error)}"
        raise ValueError(msg) from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    try:
        with archive.open(entry) as file:
            # Without pickles, which can hold any code.
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            # The checksum is looked at where an entry ends.
            rest = file.read(1)
    except Exception as error:  # noqa: BLE001  (as above)
        msg = f"{_shown(entry.filename)} in it cannot be read: {_reason(error)}"
        raise ValueError(msg) from None
    if rest:
        msg = f"expected an array as {_shown(entry.filename)}, got more behind it"
        raise ValueError(msg)
    return array


def _split(arrays: Mapping[str, Array], forms: Mapping[str, InputForm]) -> list[dict[str, Array]]:
    """Return the requests that ``arrays`` are, judged by their keys."""
    single: dict[str, Array] = {}
    numbered: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = None if key in forms else _NUMBERED_KEY.fullmatch(key)
        if match:
            numbered.setdefault(int(match[1]), {})[match[2]] = array
        else:
            single[key] = array
    if not numbered:
        return [single] if single else []
    if single:
        msg = f"expected the request's number in front of every name or of none, got {_shown(next(iter(single)))}"
        raise ValueError(msg)
    missing = next((number for number in range(len(numbered)) if number not in numbered), None)
    if missing is not None:
        msg = f"expected requests numbered from 0 on, got number {max(numbered)} and no number {missing}"
        raise ValueError(msg)
    return [numbered[number] for number in range(len(numbered))]


# Recorded requests to arrays of the declared types. All of these raise ValueError.


def _of_json(forms: Mapping[str, InputForm], recorded: object) -> dict[str, Array]:
    if not isinstance(recorded, dict):
        msg = f"expected an object with the inputs by name, got {_shown(recorded)}"
        raise ValueError(msg)  # noqa: TRY004  (it is the file's mistake, not the program's)
    if _is_body(forms, recorded):
        return _of_body(forms, recorded)
    return {name: from_json(_form(forms, name), value) for name, value in recorded.items()}


def _is_body(forms: Mapping[str, InputForm], recorded: Mapping[str, object]) -> bool:
    """Whether this is a body of the protocol. A model may have an input called ``inputs``, but none of objects."""
    inputs = recorded.get("inputs")
    if not isinstance(inputs, list):
        return False
    return "inputs" not in forms or any(isinstance(tensor, dict) for tensor in inputs)


def _of_body(forms: Mapping[str, InputForm], body: Mapping[str, Any]) -> dict[str, Array]:
    unknown = next((key for key in body if key not in _BODY_KEYS), None)
    if unknown is not None:
        msg = f"expected {', '.join(sorted(_BODY_KEYS))} only, got {_shown(unknown)}"
        raise ValueError(msg)
    request: dict[str, Array] = {}
    for tensor in body["inputs"]:
        name = tensor.get("name") if isinstance(tensor, dict) else None
        if not isinstance(name, str):
            msg = f"inputs: expected objects with a name, got {_shown(tensor)}"
            raise ValueError(msg)  # noqa: TRY004  (as above)
        if name in request:
            msg = f"input {_shown(name)}: expected it once, got it again"
            raise ValueError(msg)
        form = _form(forms, name)
        with _naming(form):
            request[name] = _of_tensor(form, tensor)
    return request


def _of_tensor(form: InputForm, tensor: Mapping[str, Any]) -> Array:
    datatype, shape = tensor.get("datatype"), tensor.get("shape")
    if datatype != form.datatype.name:
        raise _MismatchError(f"expected datatype {form.datatype.name}, got {_shown(datatype)}")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise _MismatchError(f"expected a shape, a list of integers, got {_shown(shape)}")
    if "data" not in tensor:
        raise _MismatchError("expected data, got none")
    elements, nested = _flattened(tensor["data"])
    is_flat = len(nested) <= 1 and len(elements) == math.prod(shape)
    if not is_flat and nested != tuple(shape):
        raise _MismatchError(f"expected data for shape {_cut(shape)}, got data of shape {list(nested)}")
    return _shaped(form, _converted(form.datatype, elements), tuple(shape))


def _of_arrays(forms: Mapping[str, InputForm], recorded: Mapping[str, Array]) -> dict[str, Array]:
    request: dict[str, Array] = {}
    for name, array in recorded.items():
        form = _form(forms, name)
        with _naming(form):
            request[name] = _shaped(form, _cast(form.datatype, array), _with_rows(form, array.shape))
    return request


def _form(forms: Mapping[str, InputForm], name: str) -> InputForm:
    form = forms.get(name)
    if form is None:
        msg = f"input {_shown(name)}: the model has no such input, it has {', '.join(forms) or 'none'}"
        raise ValueError(msg)
    return form


def _require_complete(forms: Sequence[InputForm], request: Mapping[str, Array]) -> None:
    for form in forms:
        if form.name not in request and not form.optional:
            msg = f'input "{form.name}": expected {form.datatype.name} {_shape_text(form.shape)}, got no such input'
            raise ValueError(msg)


def _require_agreement(forms: Sequence[InputForm], request: Mapping[str, Array], loose: Collection[str]) -> None:
    """Refuse inputs that differ in rows, whatever the batch axis is called, or in open dimensions of one name."""
    #: Sizes by the dimension's name, None for rows, and the input that each was first seen in.
    seen: dict[str | None, tuple[int, str]] = {}
    for form in forms:
        if form.name not in request:
            continue
        for dimension, size in _compared(form, request[form.name].shape, loose):
            expected, first = seen.setdefault(dimension, (size, form.name))
            if dimension is None and expected == 0:
                msg = f'input "{form.name}": expected at least 1 row, got none'
                raise ValueError(msg)
            if size != expected:
                what = f"{expected} rows" if dimension is None else f"{dimension} = {expected}"
                msg = f'input "{form.name}": expected {what} as in input "{first}", got {size}'
                raise ValueError(msg)


def _compared(form: InputForm, shape: tuple[int, ...], loose: Collection[str]) -> Iterator[tuple[str | None, int]]:
    """Yield the sizes on which inputs must agree, None for rows."""
    for axis, (declared, size) in enumerate(zip(form.shape, shape, strict=True)):
        if axis == form.batch_axis:
            yield None, size
        elif isinstance(declared, str) and declared not in loose:
            yield declared, size


# One input.


class _MismatchError(Exception):
    """What is wrong with an input, without its name."""


@contextmanager
def _naming(form: InputForm) -> Iterator[None]:
    try:
        yield
    except _MismatchError as error:
        msg = f'input "{form.name}": {error}'
        raise ValueError(msg) from None


def _flattened(value: object) -> tuple[list[Any], tuple[int, ...]]:
    """Return the elements of lists in lists, and the shape that these have."""
    level: list[Any] = [value]
    shape: list[int] = []
    while any(isinstance(item, list) for item in level):
        if len(shape) == _MOST_DIMENSIONS:
            raise _MismatchError(f"expected at most {_MOST_DIMENSIONS} dimensions, got lists nested more deeply")
        shapes: list[tuple[int, ...]] = sorted({(len(item),) if isinstance(item, list) else () for item in level})
        if len(shapes) > 1:
            raise _MismatchError(
                f"expected lists of one shape beside each other, got {list(shapes[0])} and {list(shapes[1])}"
            )
        shape.append(shapes[0][0])
        level = [inner for item in level for inner in item]
    return level, tuple(shape)


def _converted(datatype: DataType, elements: list[Any]) -> Array:
    """Return values of JSON as a one-dimensional array of the declared type."""
    kind = datatype.numpy.kind
    accepted = _ACCEPTED.get(kind, _NUMBERS)
    for element in elements:
        # Exact types, because a Python bool is an int as well.
        if type(element) not in accepted:
            raise _MismatchError(f"expected {datatype.name}, got {_shown(element)}")
    if datatype is BYTES:
        return _texts(elements)
    if kind in "iu":
        _require_range(datatype, elements)
    elif kind != "b":
        return _rounded(datatype, _doubles(datatype, elements))
    return np.array(elements, datatype.numpy)


def _doubles(datatype: DataType, elements: list[Any]) -> NDArray[Any]:
    try:
        return np.array(elements, np.float64)
    except OverflowError:
        largest = max((element for element in elements if isinstance(element, int)), key=abs)
        raise _beyond(datatype, largest) from None


def _cast(datatype: DataType, array: NDArray[Any]) -> Array:
    """Return an array of the declared type, in C's order; changes numbers to another type of their kind only."""
    target, kind = datatype.numpy, array.dtype.kind
    if datatype is BYTES and kind in "SU":
        try:
            elements = array.ravel().tolist()
        except (ValueError, SystemError):
            # numpy does not look at what it reads as characters.
            raise _MismatchError("expected text, got numbers that are no characters") from None
        return _texts(elements).reshape(array.shape)
    if array.dtype.newbyteorder("=") == target:
        return array.astype(target, order="C", copy=False)
    if target.kind == "V" and array.dtype == np.dtype("V2"):
        # How numpy, whose format knows no bfloat16, writes it.
        return np.asarray(array, order="C").view(target)
    if target.kind in "fV" and kind in "fiu":
        return _rounded(datatype, array)
    if target.kind in "iu" and kind in "iu":
        _require_range(datatype, [array.min(), array.max()] if array.size else [])
        return array.astype(target, order="C")
    raise _MismatchError(f"expected {datatype.name}, got dtype {_cut(array.dtype)}")


def _require_range(datatype: DataType, integers: Iterable[Any]) -> None:
    bounds = np.iinfo(datatype.numpy.type)  # type: ignore[type-var]  # callers have looked at its kind
    for integer in map(int, integers):
        if not bounds.min <= integer <= bounds.max:
            raise _beyond(datatype, integer)


def _rounded(datatype: DataType, exact: NDArray[Any]) -> Array:
    with np.errstate(all="ignore"):
        rounded = exact.astype(datatype.numpy, order="C")
    lost = np.isfinite(exact) & ~np.isfinite(rounded.astype(np.float64))
    if lost.any():
        raise _beyond(datatype, exact[lost][0].item())
    return rounded


def _texts(elements: Sequence[str | bytes]) -> Array:
    """Return a BYTES array. ``np.array`` would make a fixed-width one and drop trailing zeros."""
    array = np.empty(len(elements), object)
    array[:] = [_utf8(element, position) for position, element in enumerate(elements)]
    return array


def _utf8(element: str | bytes, position: int) -> bytes:
    try:
        if isinstance(element, str):
            return element.encode()
        element.decode()
    except UnicodeError:
        what = "a lone surrogate" if isinstance(element, str) else "other bytes"
        raise _MismatchError(f"expected UTF-8 text, got {what} in element {position}") from None
    return element


def _with_rows(form: InputForm, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``shape``, with a batch dimension if it lacks just that."""
    axis = form.batch_axis
    return shape if axis is None or len(shape) != len(form.shape) - 1 else (*shape[:axis], 1, *shape[axis:])


def _shaped(form: InputForm, array: Array, shape: tuple[int, ...]) -> Array:
    """Return ``array``, which has as many elements, in ``shape``, which must be one that is declared."""
    if len(shape) == len(form.shape) and all(
        not isinstance(declared, int) or declared == size for declared, size in zip(form.shape, shape, strict=True)
    ):
        try:
            return array.reshape(shape)
        except (ValueError, OverflowError):
            # Only for shapes of zero elements with dimensions that no array can have.
            raise _MismatchError(f"shape {_cut(shape)} is too large") from None
    raise _MismatchError(f"expected shape {_shape_text(form.shape)}, got {_cut(list(shape))}")


# How things look in texts of errors.


def _beyond(datatype: DataType, number: float) -> _MismatchError:
    return _MismatchError(f"expected {datatype.name}, got a number beyond its range: {_shown(number)}")


def _shape_text(shape: Sequence[int | str | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _shown(value: object) -> str:
    """Write a value as JSON, the beginning of a long one."""
    try:
        return _cut(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        # Keys that are no text, numbers of thousands of digits, values that hold themselves.
        return f"a {type(value).__name__}"


def _cut(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS_SHOWN else text[:_MOST_CHARACTERS_SHOWN] + "…"


def _reason(error: Exception) -> str:
    # In one line: numpy advises its callers in several.
    return " ".join(str(error).split()) or type(error).__name__
