"""Read JSON of unauthenticated callers: strictly, and in steps that do not hold the interpreter lock for long."""

import json
import math
import re
from collections import deque
from typing import Any

import orjson

from inferd.errors import InvalidInputError
from inferd.minus_zero import MINUS_ZERO
from inferd.plain_text import quoted

#: JSON of up to this size is parsed in one step.
QUICK_BYTES = 64 * 1024

#: What each name in an object matches, and little else does.
_NAME_END = re.compile(rb'"\s*:')

_STRING_OR_MINUS_ZERO = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|' + MINUS_ZERO.pattern, re.DOTALL)
_SIGNED_ZERO = b"-0.0"

#: What Python's encoder, and so Triton's client, writes for numbers that JSON has not.
_NO_NUMBERS = (b"NaN", b"Infinity", b"-Infinity")


def read_object(text: bytes | memoryview) -> dict[str, Any]:
    """Parse at most `QUICK_BYTES` of JSON, which must be one object. Raises `InvalidInputError`.

    Names that an object has twice are refused: readers differ in which of the values they take.
    """
    try:
        value = load(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(_explain(bytes(text), error)) from None
    if not isinstance(value, dict):
        raise InvalidInputError(f"the body: expected a JSON object, got {kind_of(value)}")
    _reject_duplicates(bytes(text), value)
    return value


def load(text: bytes | memoryview) -> Any:  # noqa: ANN401  (whatever it is)
    """Parse a short ``text``, which may have the literals NaN, Infinity and -Infinity. Raises `JSONDecodeError`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        whole = bytes(text)
        if not whole.startswith(_NO_NUMBERS, _position(whole, error)):
            raise
        return _load_with_literals(whole, error)


def with_signed_zeros(text: bytes) -> bytes:
    """Return a short ``text`` with -0.0 for the integer -0, which would be parsed without its sign."""
    if MINUS_ZERO.search(text) is None:
        return text
    return _STRING_OR_MINUS_ZERO.sub(lambda found: found[1] or _SIGNED_ZERO, text)


def numbers_with_signed_zeros(text: bytes) -> bytes:
    """Do the same where strings are not kept anyway, in a sixth of the time."""
    return MINUS_ZERO.sub(_SIGNED_ZERO, text)


def kind_of(value: object) -> str:
    """Return what JSON calls the kind of ``value``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    for kind, name in ((str, "a string"), (dict, "an object"), (list, "an array")):
        if isinstance(value, kind):
            return name
    return "a number"


def shown(value: object) -> str:
    """Return ``value``, or its kind if it may be long or a caller's content: texts of errors are logged."""
    if isinstance(value, str) and len(value.split()) <= 1:
        return quoted(value)
    return orjson.dumps(value).decode() if isinstance(value, bool | int | float) else kind_of(value)


def _load_with_literals(text: bytes, error: orjson.JSONDecodeError) -> Any:  # noqa: ANN401
    """Parse as orjson does, but for the literals, which take longer; raise ``error`` for what it would refuse."""
    try:
        value = json.loads(text.decode(), parse_int=_integer, parse_float=_finite)
        # Refuses halves of surrogate pairs.
        orjson.dumps(value)
    except (ValueError, RecursionError, OverflowError, orjson.JSONEncodeError):
        raise error from None
    return value


def _integer(text: str) -> int | float:
    value = int(text)
    return value if -(2**63) <= value < 2**64 else float(value)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise OverflowError
    return value


def _explain(text: bytes, error: orjson.JSONDecodeError) -> str:
    reason = "it is empty" if not text.strip() else error.msg
    return f"the body is not valid JSON: {reason} (byte {_position(text, error)})"


def _position(text: bytes, error: orjson.JSONDecodeError) -> int:
    # The parser counts characters.
    return len(text.decode(errors="replace")[: error.pos].encode())


def end_of_object(text: bytes) -> int | None:
    """Return how long the JSON at the beginning of ``text`` is; None if there is none."""
    try:
        # As bytes are decoded to characters one by one, positions in both are the same.
        return json.JSONDecoder().raw_decode(text.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        return None


def _reject_duplicates(text: bytes, value: dict[str, Any]) -> None:
    """Raise `InvalidInputError` if an object in ``text`` has a name twice; ``value`` is what it was parsed to."""
    # If there are no more ends of names than names were read, none got lost.
    if len(_NAME_END.findall(text)) == _count_names(value):
        return
    try:
        json.loads(text, object_pairs_hook=_distinct)
    except RecursionError:
        raise InvalidInputError("the body: the JSON is nested too deep") from None


def _count_names(value: dict[str, Any]) -> int:
    count = 0
    pending: deque[Any] = deque((value,))
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            count += len(each)
            pending.extend(inner for inner in each.values() if isinstance(inner, dict | list))
        elif each and isinstance(each[0], dict | list):
            pending.extend(inner for inner in each if isinstance(inner, dict | list))
        # Objects after the first of another type only make the exact comparison necessary.
    return count


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidInputError(f'the body: expected the name "{name}" once in an object, got it again')
        found[name] = value
    return found
