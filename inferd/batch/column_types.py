"""Types of columns: which of them a model's input takes, and which its outputs have. Pure."""

from collections.abc import Sequence

import pyarrow as pa

from inferd.dtypes import BYTES, DataType
from inferd.runtime.signature import TensorSpec, format_shape

_TYPES = {
    "BOOL": pa.bool_(),
    "UINT8": pa.uint8(),
    "UINT16": pa.uint16(),
    "UINT32": pa.uint32(),
    "UINT64": pa.uint64(),
    "INT8": pa.int8(),
    "INT16": pa.int16(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "FP16": pa.float16(),
    "FP32": pa.float32(),
    "FP64": pa.float64(),
    "BYTES": pa.string(),
    # Arrow has no such type; FP32 holds all its values.
    "BF16": pa.float32(),
}


def row_shape(spec: TensorSpec) -> tuple[int | str | None, ...]:
    """Return the shape of one row of a tensor: without its batch axis, if it has one."""
    axis = spec.batch_axis
    return spec.shape if axis is None else (*spec.shape[:axis], *spec.shape[axis + 1 :])


def arrow_type(datatype: DataType) -> pa.DataType:
    """Return the type of columns with elements of ``datatype``."""
    return _TYPES[datatype.name]


def nested_type(element: pa.DataType, shape: Sequence[int | str | None]) -> pa.DataType:
    """Return the type of a column with a tensor of ``shape`` in each row: lists, of fixed sizes where it has them."""
    for size in reversed(shape):
        element = pa.list_(element, size) if isinstance(size, int) else pa.list_(element)
    return element


def output_type(spec: TensorSpec) -> pa.DataType:
    """Return the type of the column of an output."""
    return nested_type(arrow_type(spec.datatype), row_shape(spec))


def read_type(spec: TensorSpec) -> pa.DataType:
    """Return the type in which text formats read the column of an input."""
    # Their parsers know no half floats, and no lists of fixed size.
    element = pa.float32() if spec.datatype.name == "FP16" else arrow_type(spec.datatype)
    return nested_type(element, (None,) * len(row_shape(spec)))


def mismatch(spec: TensorSpec, column: pa.DataType) -> str | None:
    """Return what a column that the input cannot take has, and what it should have; None if it can take it."""
    shape = row_shape(spec)
    depth, element = _depth(column)
    if depth != len(shape):
        lists = f"lists of {depth} dimensions" if depth else "single values"
        return f"expected {spec.datatype.name} {format_shape(shape)} in each row, got {lists} of {element}"
    is_text = _is_text(element)
    if is_text != (spec.datatype is BYTES) or not (is_text or _is_number(element)):
        return f"expected {spec.datatype.name} {format_shape(shape)} in each row, got elements of type {element}"
    return None


def _depth(column: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how many lists are in each other, and the type of the elements."""
    depth = 0
    while True:
        if isinstance(column, pa.FixedShapeTensorType):
            return depth + len(column.shape), column.value_type
        column = simple_type(column.storage_type if isinstance(column, pa.BaseExtensionType) else column)
        if not _is_list(column):
            return depth, column
        depth, column = depth + 1, column.value_type


def simple_type(kind: pa.DataType) -> pa.DataType:
    """Return the plain type of views, dictionaries and run-length encoding; ``kind`` itself if it is none of these."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return kind.value_type
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_type)
    return kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_string(kind) or types.is_large_string(kind) or is_binary(kind)


def is_binary(kind: pa.DataType) -> bool:
    """Whether elements are bytes that may be no text."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))
