"""Outputs as the elements of JSON arrays."""

import math

import ml_dtypes
import numpy as np
import orjson

from inferd.api.tensors import Array
from inferd.errors import InvalidInputError

#: Elements written in one step, which holds the interpreter lock for about a millisecond.
_STEP = 16 * 1024

#: The only FP32 number whose shortest digits another one gets when they are read as a double that is rounded again, as
#: most readers of JSON do (all positive finite ones were tried): 7.038531e-26.
_TWICE_ROUNDED = np.float32(float.fromhex("0x1.5c87fap-84"))


def data_of(name: str, array: Array) -> list[bytes]:
    """Return the elements of ``array`` as JSON in row-major order, without the brackets, in parts.

    Numbers have the shortest digits that identify them in their type. NaN and the infinities are the strings of
    `json_data.NO_NUMBERS`. Raises `InvalidInputError` for BYTES that are not UTF-8.
    """
    flat = array.reshape(-1)
    if flat.dtype == ml_dtypes.bfloat16:
        with np.errstate(invalid="ignore"):  # signalling NaN
            flat = flat.astype(np.float32)
    parts: list[bytes] = []
    for start in range(0, flat.size, _STEP):
        step = flat[start : start + _STEP]
        if parts:
            parts.append(b",")
        parts.append(_texts(name, step, start) if flat.dtype.hasobject else _numbers(step))
    return parts


def _numbers(flat: Array) -> bytes:
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
        digits[position] = _other(float(flat[position]))
    return b",".join(digits)


def _other(value: float) -> bytes:
    if math.isnan(value):
        return b'"NaN"'
    if math.isinf(value):
        return b'"Infinity"' if value > 0 else b'"-Infinity"'
    return orjson.dumps(value)


def _texts(name: str, flat: Array, first: int) -> bytes:
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
