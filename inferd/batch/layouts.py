"""Convert columns in any of Arrow's layouts to lists and plain elements of the same values."""

from collections.abc import Sequence
from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferd.batch.column_types import is_list, tensor_shape


def plain(column: pa.Array) -> pa.Array:
    """Return ``column`` without dictionaries, run-length encoding, views and extension types at its outermost level."""
    while True:
        kind = column.type
        shape = tensor_shape(kind)
        if shape:
            column = _tensors(column, shape)
        elif isinstance(kind, pa.BaseExtensionType):
            column = column.storage
        elif pa.types.is_dictionary(kind):
            column = column.dictionary_decode()
        elif pa.types.is_run_end_encoded(kind):
            column = without_runs(column)
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            column = _lists(column)
        elif pa.types.is_string_view(kind):
            return column.cast(pa.large_string())
        elif pa.types.is_binary_view(kind):
            return column.cast(pa.large_binary())
        else:
            return column


def nested(values: pa.Array, sizes: Sequence[int]) -> pa.Array:
    """Return ``values`` as nested lists of fixed ``sizes``, the outermost first."""
    for size in reversed(sizes):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return values


def without_runs(column: pa.RunEndEncodedArray) -> pa.Array:
    """Return the run-length encoded column decoded; pyarrow itself decodes some types only."""
    rows = np.arange(column.offset, column.offset + len(column))
    runs = np.searchsorted(column.run_ends.to_numpy(zero_copy_only=False), rows, side="right")
    return column.values.take(pa.array(runs))


def without_list_views(column: pa.Array) -> pa.Array:
    """Return ``column`` with lists in place of list views, at all levels.

    The casts of pyarrow 26, which should do this, lose elements.
    """
    if not _has_list_views(column.type):
        return column
    lists = _lists(column)
    values = without_list_views(lists.values)
    return pa.LargeListArray.from_arrays(lists.offsets, values, mask=lists.is_null() if lists.null_count else None)


def _has_list_views(kind: pa.DataType) -> bool:
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    return is_list(kind) and _has_list_views(kind.value_type)


def _lists(column: pa.Array) -> pa.LargeListArray:
    """Return lists of any kind as large lists, without elements that belong to no list."""
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))
    return pa.LargeListArray.from_arrays(
        offsets, column.flatten(), mask=column.is_null() if column.null_count else None
    )


def _tensors(column: pa.ExtensionArray, shape: tuple[int, ...]) -> pa.FixedSizeListArray:
    """Return the flat lists of a tensor column as nested lists, with the dimensions in logical order."""
    size = prod(shape)
    storage = column.storage.cast(pa.list_(column.type.storage_type.value_type, size))
    # With the elements of null rows, which `flatten` drops.
    values = storage.values.slice(storage.offset * size, len(storage) * size)
    order = getattr(column.type, "permutation", None) or range(len(shape))
    if list(order) != sorted(order):
        within = np.arange(size).reshape(shape).transpose(order).ravel()
        values = values.take(pa.array((np.arange(len(storage))[:, None] * size + within).ravel()))
    sizes = [shape[axis] for axis in order]
    mask = storage.is_null() if storage.null_count else None
    return pa.FixedSizeListArray.from_arrays(nested(values, sizes[1:]), sizes[0], mask=mask)
