"""Detect whole numbers of text formats that floats cannot represent, which are some of those above 2**53. Pure.

A joined column, for example of ids, must not silently lose digits: such a number is an error of its row. Inputs of
the model are rounded to the nearest, like any other number.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferd.batch.column_types import is_list

_MARK = {b"inferd": b"exact"}

#: From here on, doubles cannot represent all whole numbers.
_LIMIT = 2.0**53

#: Texts of whole numbers that may be above it.
_LONG = r"^[+-]?\d{16,}(\.0*)?$"


def marked(field: pa.Field) -> pa.Field:
    """Return ``field`` with the mark that its whole numbers must not be rounded."""
    return field.with_metadata(_MARK)


def is_marked(field: pa.Field) -> bool:
    """Return True if whole numbers in ``field`` must not be rounded."""
    return bool(field.metadata == _MARK)


def are_exact(texts: pa.Array) -> bool:
    """Return True if floats represent all whole numbers among ``texts``."""
    is_long = pc.match_substring_regex(texts, _LONG)
    if not pc.any(is_long).as_py():
        return True
    return all(is_exact(int(text.partition(".")[0])) for text in texts.filter(is_long).to_pylist())


def is_exact(number: int) -> bool:
    """Return True if a float represents ``number``."""
    try:
        return float(number) == number
    except OverflowError:
        return False


def may_be_rounded(column: pa.ChunkedArray) -> bool:
    """Return True if a float in ``column``, or in its lists, may be a rounded whole number."""
    for chunk in column.chunks:
        leaves = chunk
        while is_list(leaves.type):
            leaves = leaves.flatten()
        if pa.types.is_floating(leaves.type) and (np.abs(leaves.to_numpy(zero_copy_only=False)) >= _LIMIT).any():
            return True
    return False
