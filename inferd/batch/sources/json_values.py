"""Parse JSON, and convert its values to columns of Arrow."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import inf, nan
from typing import Any

import orjson
import pyarrow as pa

from inferd.batch import exact_numbers
from inferd.batch.column_types import is_binary, is_list, is_text
from inferd.minus_zero import MINUS_ZERO, parse_int

#: Texts for floats that JSON has no numbers for, as `inferd infer --json` and protobuf write them.
_NO_NUMBERS: Mapping[object, float] = {"NaN": nan, "Infinity": inf, "-Infinity": -inf}


def loaded(text: bytes | str) -> Any:  # noqa: ANN401  (any value of JSON)
    """Parse ``text``, in which NaN, Infinity and large integers are allowed. Raises `ValueError`.

    The integer -0 becomes a `MinusZero`, as pyarrow keeps its sign in columns of floats.
    """
    if MINUS_ZERO.search(text if isinstance(text, bytes) else text.encode()) is None:
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(text)
    try:
        return json.loads(text, parse_int=parse_int)
    except RecursionError:
        msg = "it is too deep"
        raise ValueError(msg) from None


def array_of(values: Sequence[object], kind: pa.DataType, *, is_exact: bool = False) -> pa.Array:
    """Return ``values`` as an array of ``kind``. Raises `ValueError` or an error of pyarrow if one does not fit.

    ``is_exact``: whole numbers must not be rounded.
    """
    checked = [_checked(value, kind, is_exact=is_exact) for value in values]
    if pa.types.is_nested(kind) or _has_own_type(kind):
        return pa.array(checked, kind)
    # Times and other types without a form in JSON are texts.
    return pa.array(checked, pa.string()).cast(kind)


def type_of(values: Sequence[object]) -> pa.DataType:
    """Return the common type of ``values``; texts if there is none, null without values."""
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()


def _has_own_type(kind: pa.DataType) -> bool:
    is_number = bool(pa.types.is_primitive(kind) and not pa.types.is_temporal(kind))
    return is_number or is_text(kind) or is_binary(kind)


def _checked(value: Any, kind: pa.DataType, *, is_exact: bool) -> object:  # noqa: ANN401  (any value of JSON)
    """Return ``value`` as pyarrow expects it for ``kind``. Unchecked, pyarrow would truncate some values."""
    types = pa.types
    if value is None or types.is_boolean(kind):
        return _expected(value, bool)
    if types.is_floating(kind) or types.is_integer(kind):
        return _number(value, kind, is_exact=is_exact)
    if types.is_struct(kind):
        fields = _expected(value, dict)
        return {field.name: _checked(fields.get(field.name), field.type, is_exact=is_exact) for field in kind}
    if is_list(kind):
        return [_checked(element, kind.value_type, is_exact=is_exact) for element in _expected(value, list)]
    if isinstance(value, int | float) and (is_text(kind) or is_binary(kind)):
        # As in CSV: ids are often numbers in some rows and texts in others.
        return json.dumps(value)
    return _expected(value, str)


def _number(value: Any, kind: pa.DataType, *, is_exact: bool) -> int | float:  # noqa: ANN401  (any value of JSON)
    if pa.types.is_floating(kind):
        number = _NO_NUMBERS.get(value, value) if isinstance(value, str) else value
        if is_exact and isinstance(number, int) and not exact_numbers.is_exact(number):
            msg = f"a whole number that {kind} cannot hold"
            raise ValueError(msg)
        return float(_expected(number, int | float))
    return int(value) if isinstance(value, float) and value.is_integer() else int(_expected(value, int))


def _expected(value: Any, kind: Any) -> Any:  # noqa: ANN401  (any value of JSON)
    if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
        msg = f"expected {kind}"
        raise ValueError(msg)
    return value
