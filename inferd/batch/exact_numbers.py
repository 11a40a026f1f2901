"""Whole numbers of text formats in columns of floats, which hold those up to 2**53 only.

A column that is kept as it is must not lose digits, as of ids, without a word: such a number is an error of its row. An
input of the model is rounded to the nearest, like any other number. Pure.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferd.batch.column_types import is_list

_MARK = {b"inferd": b"exact"}

#: From here on, doubles leave out whole numbers.
_LIMIT = 2.0**53

#: Whole numbers that may be above it.
_LONG = r"^[+-]?\d{16,}(\.0*)?$"


def marked(field: pa.Field) -> pa.Field:
    """Return ``field`` as one whose whole numbers are not rounded."""
    return field.with_metadata(_MARK)


def is_marked(field: pa.Field) -> bool:
    """Whether whole numbers in ``field`` are not rounded."""
    return bool(field.metadata == _MARK)


def are_exact(texts: pa.Array) -> bool:
    """Whether floats hold the whole numbers among ``texts``."""
    is_long = pc.match_substring_regex(texts, _LONG)
    if not pc.any(is_long).as_py():
        return True
    return all(is_exact(int(text.partition(".")[0])) for text in texts.filter(is_long).to_pylist())


def is_exact(number: int) -> bool:
    """Whether a float holds ``number``."""
    try:
        return float(number) == number
    except OverflowError:
        return False


def may_be_rounded(column: pa.ChunkedArray) -> bool:
    """Whether a float in ``column``, or in its lists, may be a whole number that was rounded."""
    for chunk in column.chunks:
        leaves = chunk
        while is_list(leaves.type):
            leaves = leaves.flatten()
        if pa.types.is_floating(leaves.type) and (np.abs(leaves.to_numpy(zero_copy_only=False)) >= _LIMIT).any():
            return True
    return False
