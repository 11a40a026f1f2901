"""Columns in any of Arrow's layouts as lists and plain elements: what is the same value in another layout."""

from math import prod

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from inferd.batch.column_types import tensor_shape


def plain(column: pa.Array) -> pa.Array:
    """Return ``column`` without dictionaries, run lengths, views and extension types, at its outermost level."""
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
            column = pc.run_end_decode(column)
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            column = _lists(column)
        elif pa.types.is_string_view(kind):
            return column.cast(pa.large_string())
        elif pa.types.is_binary_view(kind):
            return column.cast(pa.large_binary())
        else:
            return column


def _lists(views: pa.Array) -> pa.LargeListArray:
    # A cast of a slice of views has wrong offsets in pyarrow 26.
    lengths = pc.fill_null(pc.list_value_length(views), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))
    return pa.LargeListArray.from_arrays(offsets, views.flatten(), mask=views.is_null() if views.null_count else None)


def _tensors(column: pa.ExtensionArray, shape: tuple[int, ...]) -> pa.FixedSizeListArray:
    """Return the flat lists of a tensor column as lists in each other, with its dimensions in their logical order."""
    size = prod(shape)
    storage = column.storage.cast(pa.list_(column.type.storage_type.value_type, size))
    # With those of null rows, which `flatten` leaves out.
    nested = storage.values.slice(storage.offset * size, len(storage) * size)
    order = getattr(column.type, "permutation", None) or range(len(shape))
    if list(order) != sorted(order):
        within = np.arange(size).reshape(shape).transpose(order).ravel()
        nested = nested.take(pa.array((np.arange(len(storage))[:, None] * size + within).ravel()))
    sizes = [shape[axis] for axis in order]
    for inner in reversed(sizes[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, inner)
    mask = storage.is_null() if storage.null_count else None
    return pa.FixedSizeListArray.from_arrays(nested, sizes[0], mask=mask)
