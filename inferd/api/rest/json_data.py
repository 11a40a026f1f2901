"""Convert the ``data`` of tensors between JSON and arrays: of inputs, flat or nested, and of outputs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import inf, isinf, isnan, nan, prod
from typing import Any

import ml_dtypes
import numpy as np
import orjson
from numpy.typing import NDArray

from inferd.api import tensors
from inferd.api.json_text import load, numbers_with_signed_zeros
from inferd.api.oip.parameters import is_beyond_64_bits, type_name
from inferd.api.rest.long_arrays import Array, ElementTooLongError, Piece, pieces_of
from inferd.dtypes import BYTES, DataType
from inferd.errors import InvalidInputError
from inferd.interpreter_lock import POLL_THREAD

#: Strings for values that JSON has no number for, as in protobuf's JSON.
NO_NUMBERS: Mapping[str, float] = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}

_SPACES = np.zeros(256, np.bool_)
_SPACES[list(b" \t\r\n")] = True
_CHANGES = np.zeros(256, np.int8)
_CHANGES[ord("[")] = 1
_CHANGES[ord("]")] = -1
_OPEN, _CLOSE, _COMMA, _SPACE, _OTHER = b"[], 0"
#: Elements written in one step, which holds the interpreter lock for about 0.2 ms.
_STEP_ELEMENTS = 4 * 1024
#: Steps after which the thread sleeps, if calls over gRPC come less often.
_STEPS_WITHOUT_SLEEP = 4

#: 7.038531e-26, the only FP32 number whose shortest digits become another one when they are read as a double and
#: rounded again, as most readers of JSON do. All positive finite ones were tried.
_TWICE_ROUNDED = np.float32(float.fromhex("0x1.5c87fap-84"))


def from_data(name: str, datatype: DataType, shape: Sequence[int], data: object) -> tensors.Array:
    """Return the tensor of a short ``data``. Raises `InvalidInputError` if it is not of ``datatype`` and ``shape``."""
    if not isinstance(data, list):
        if shape:
            raise tensors.invalid(name, f"expected an array, got {type_name(data)}")
        data = [data]
    elif len(shape) > 1 and data and isinstance(data[0], list):
        data = _flattened(name, data, shape)
    return tensors.shaped(name, _elements(name, datatype, data, 0), shape)


def _flattened(name: str, data: list[Any], shape: Sequence[int]) -> list[Any]:
    """Return the elements of a nested array, which must agree with ``shape``."""
    level = [data]
    for axis, dimension in enumerate(shape):
        for each in level:
            if not isinstance(each, list):
                raise _disagrees(name, shape, f"{type_name(each)} in place of an array at depth {axis}")
            if len(each) != dimension:
                raise _disagrees(name, shape, f"{len(each)} elements at depth {axis}")
        level = list(chain.from_iterable(level))
    return level


def _disagrees(name: str, shape: Sequence[int], got: str) -> InvalidInputError:
    return tensors.invalid(name, f"expected a flat array, or one nested as shape {list(shape)} says, got {got}")


def from_long_array(
    name: str, datatype: DataType, shape: Sequence[int], text: memoryview, array: Array
) -> tensors.Array:
    """Return the tensor whose ``data`` is a long ``array`` of ``text``. Raises as `from_data`.

    Takes long, but each step is short.
    """
    expected = tensors.element_count(name, shape)
    flat: NDArray[Any] = np.empty(expected, datatype.numpy)
    filled = 0
    try:
        for values in _values_of(name, datatype, shape, text, array):
            if filled + len(values) > expected:
                raise tensors.invalid(name, f"expected {expected} elements for shape {list(shape)}, got more")
            flat[filled : filled + len(values)] = _elements(name, datatype, values, filled)
            filled += len(values)
    except ElementTooLongError:
        too_long = "expected shorter elements in JSON; send the tensor as binary data (binary_data_size) instead"
        raise tensors.invalid(name, too_long) from None
    return tensors.shaped(name, flat[:filled], shape)


def _values_of(
    name: str, datatype: DataType, shape: Sequence[int], text: memoryview, array: Array
) -> Iterator[list[Any]]:
    """Yield the parsed elements of a long array, flat."""
    nesting: _Nesting | None = None
    for number, piece in enumerate(pieces_of(text, array)):
        if number == 0 and len(shape) > 1 and min(shape) > 0 and piece.text.lstrip().startswith(b"["):
            nesting = _Nesting(name, shape)
        flat = piece.text if nesting is None else nesting.flattened(piece)
        values = _parsed(name, numbers_with_signed_zeros(flat) if datatype.is_float else flat)
        if not values and (number or not piece.is_last):
            raise _not_json(name, "a comma without an element")
        if number:
            _give_way(number)
        yield values


def _give_way(step: int) -> None:
    POLL_THREAD.give_way(may_sleep=POLL_THREAD.is_used or step % _STEPS_WITHOUT_SLEEP == 0)


def _parsed(name: str, text: bytes) -> list[Any]:
    try:
        values: list[Any] = load(b"[%b]" % text)
    except orjson.JSONDecodeError as error:
        raise _not_json(name, error.msg) from None
    return values


def _not_json(name: str, text: str) -> InvalidInputError:
    return tensors.invalid(name, f"data is not valid JSON: {text}")


class _Nesting:
    """Checks piece by piece that the brackets of an array agree with a shape, none of whose dimensions is 0.

    The position of each comma among the elements determines how many arrays end and begin there.
    """

    __slots__ = ("_before", "_commas", "_depth", "_name", "_rows", "_shape")

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self._name = name
        self._shape = shape
        #: Elements of the inner arrays, from the innermost on.
        self._rows = [prod(shape[axis:]) for axis in range(len(shape) - 1, 0, -1)]
        self._depth = 1
        self._commas = 0
        #: The last byte that is no space.
        self._before = _OPEN

    def flattened(self, piece: Piece) -> bytes:
        """Return the text of ``piece`` with spaces for brackets. Raises `InvalidInputError` if it is nested wrong."""
        text = np.frombuffer(piece.text, np.uint8).copy()
        seen = np.where(piece.outside, text, np.uint8(_OTHER))
        end = b"]" if piece.is_last else b","
        self._check(np.append(seen[~_SPACES[seen]], np.frombuffer(end, np.uint8)))
        text[(seen == _OPEN) | (seen == _CLOSE)] = _SPACE
        return text.tobytes()

    def _check(self, seen: NDArray[np.uint8]) -> None:
        before = np.empty_like(seen)
        before[0], before[1:] = self._before, seen[:-1]
        self._before = seen[-1]
        begins = (before == _OPEN) | (before == _COMMA)
        ends = (seen == _CLOSE) | (seen == _COMMA)
        # An array begins where an element may, nothing but an end follows its end, and there is an element.
        if ((seen == _OPEN) & ~begins).any() or ((before == _CLOSE) & ~ends).any() or (begins & ends).any():
            raise self._wrong()
        depths = self._depth + np.cumsum(_CHANGES[seen], dtype=np.int64)
        self._depth = int(depths[-1])
        at_commas = depths[seen == _COMMA]
        numbers = np.arange(self._commas + 1, self._commas + 1 + at_commas.size)
        self._commas += at_commas.size
        expected = np.full(at_commas.size, len(self._shape))
        for elements in self._rows:
            expected -= numbers % elements == 0
        elements_at = depths[~ends & (seen != _OPEN)]
        if (at_commas != expected).any() or (elements_at != len(self._shape)).any():
            raise self._wrong()

    def _wrong(self) -> InvalidInputError:
        return _disagrees(self._name, self._shape, "brackets in other places")


def _elements(name: str, datatype: DataType, values: list[Any], first: int) -> tensors.Array:
    """Return ``values`` as elements of ``datatype``; the first is element ``first`` of the tensor."""
    kind = datatype.numpy.kind
    kinds = set(map(type, values))
    if datatype is BYTES:
        _expect(name, "strings", values, kinds, {str}, first)
        return tensors.from_strings(name, datatype, values)
    if kind == "b":
        _expect(name, "booleans", values, kinds, {bool}, first)
        return tensors.from_bools(name, datatype, values)
    if kind in "iu":
        _expect(name, "integers", values, kinds, {int}, first)
        return tensors.from_integers(name, datatype, values, first)
    if str in kinds:
        values = [NO_NUMBERS.get(value, value) if isinstance(value, str) else value for value in values]
        kinds = set(map(type, values))
    _expect(name, "numbers", values, kinds, {int, float}, first)
    return tensors.from_floats(name, datatype, values, first)


def _expect(name: str, expected: str, values: list[Any], kinds: set[type], allowed: set[type], first: int) -> None:
    if not kinds <= allowed:
        position = next(position for position, value in enumerate(values) if type(value) not in allowed)
        value = values[position]
        # Integers beyond 64 bits are parsed to these.
        got = "one beyond 64 bits" if is_beyond_64_bits(value) else type_name(value)
        msg = f"expected {expected}, got {got} as element {first + position}"
        raise tensors.invalid(name, msg)


def elements_of(name: str, array: tensors.Array) -> list[bytes]:
    """Encode the elements of ``array`` as JSON in row-major order, without the brackets, in parts.

    Numbers have the shortest digits that identify them in their type. NaN and the infinities are the strings of
    `NO_NUMBERS`. Raises `InvalidInputError` for BYTES that are not UTF-8.
    """
    flat = array.reshape(-1)
    if flat.dtype == ml_dtypes.bfloat16:
        with np.errstate(invalid="ignore"):  # signalling NaN
            flat = flat.astype(np.float32)
    parts: list[bytes] = []
    for number, start in enumerate(range(0, flat.size, _STEP_ELEMENTS)):
        step = flat[start : start + _STEP_ELEMENTS]
        if number:
            _give_way(number)
            parts.append(b",")
        parts.append(_encoded_texts(name, step, start) if flat.dtype.hasobject else _encoded_numbers(step))
    return parts


def _encoded_numbers(flat: tensors.Array) -> bytes:
    text = orjson.dumps(np.ascontiguousarray(flat), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    if flat.dtype.kind != "f":
        return text
    others = ~np.isfinite(flat)
    if flat.dtype == np.float32:
        others |= np.abs(flat) == _TWICE_ROUNDED
    if not others.any():
        return text
    digits = text.split(b",")
    for position in np.flatnonzero(others).tolist():
        digits[position] = _encoded_number(float(flat[position]))
    return b",".join(digits)


def _encoded_number(value: float) -> bytes:
    if isnan(value):
        return b'"NaN"'
    if isinf(value):
        return b'"Infinity"' if value > 0 else b'"-Infinity"'
    return orjson.dumps(value)


def _encoded_texts(name: str, flat: tensors.Array, first: int) -> bytes:
    texts: list[str] = []
    for element in flat.tolist():
        try:
            texts.append(element.decode())
        except UnicodeDecodeError:
            msg = (
                f'output "{name}": element {first + len(texts)} is not UTF-8, which JSON cannot hold; ask for the '
                'output as binary data (parameter "binary_data" of the output, or "binary_data_output")'
            )
            raise InvalidInputError(msg, field='parameters["binary_data_output"]') from None
    return orjson.dumps(texts)[1:-1]
