"""Types of columns that fit a model's inputs, and the types of columns for its outputs. Pure."""

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
    """Return the shape of one row of a tensor: its shape without the batch axis."""
    axis = spec.batch_axis
    return spec.shape if axis is None else (*spec.shape[:axis], *spec.shape[axis + 1 :])


def arrow_type(datatype: DataType) -> pa.DataType:
    """Return the type of columns with elements of ``datatype``."""
    return _TYPES[datatype.name]


def nested_type(element: pa.DataType, shape: Sequence[int | str | None]) -> pa.DataType:
    """Return the type of a column with a tensor of ``shape`` in each row: lists, of fixed size for fixed dimensions."""
    for size in reversed(shape):
        element = pa.list_(element, size) if isinstance(size, int) else pa.list_(element)
    return element


def output_type(spec: TensorSpec) -> pa.DataType:
    """Return the type of the column of an output."""
    return nested_type(arrow_type(spec.datatype), row_shape(spec))


def read_type(spec: TensorSpec, inferred: pa.DataType) -> pa.DataType:
    """Return the type in which text formats read a column of an input; ``inferred`` is the type of its first rows.

    It is the widest type of its kind: values are checked against the model's type later, by `inferd.batch.tensors`.
    """
    depth, element = _depth(inferred)
    if _axes(spec, depth) is None or pa.types.is_null(inferred):
        depth = len(row_shape(spec))
    # The parsers of text formats have no lists of fixed size.
    return nested_type(_wide_type(spec.datatype, element), (None,) * depth)


def _wide_type(datatype: DataType, inferred: pa.DataType) -> pa.DataType:
    kind = datatype.numpy.kind
    if datatype is BYTES:
        return pa.string()
    if kind == "b":
        return inferred if pa.types.is_integer(inferred) else pa.bool_()
    if kind == "u":
        return inferred if pa.types.is_floating(inferred) else pa.uint64()
    if kind == "i":
        return inferred if pa.types.is_floating(inferred) else pa.int64()
    return pa.float64()


def mismatch(spec: TensorSpec, column: pa.DataType) -> str | None:
    """Return the expected and the actual type if the column does not fit the input; None if it fits."""
    expected = f"expected {spec.datatype.name} {format_shape(row_shape(spec))} in each row"
    depth, element = _depth(column)
    is_bytes = is_text(element) or is_binary(element)
    if is_bytes != (spec.datatype is BYTES) or not (is_bytes or _is_number(element)):
        return f"{expected}, got {'lists of ' if depth else ''}{element}"
    if _axes(spec, depth) is None:
        return f"{expected}, got {f'lists of {depth} dimensions' if depth else 'single values'} of {element}"
    return None


def list_axes(spec: TensorSpec, column: pa.DataType) -> tuple[int, ...] | None:
    """Return the dimension of a row of ``spec`` for each level of lists of a column; None if they do not fit."""
    return _axes(spec, _depth(column)[0])


def _axes(spec: TensorSpec, depth: int) -> tuple[int, ...] | None:
    """Return the dimension for each of ``depth`` nested lists; None if they do not fit.

    Lists may leave out all dimensions of 1, or the first dimension of a tensor without a batch axis, which is 1 then:
    many exporters write ``[1,3,224,224]`` for one picture, and ``[rows,1]`` for a column of numbers.
    """
    shape = row_shape(spec)
    longer = tuple(axis for axis, size in enumerate(shape) if size != 1)
    if depth == len(shape):
        return tuple(range(depth))
    if depth == len(longer):
        return longer
    is_one = spec.batch_axis is None and bool(shape) and (shape[0] == 1 or not isinstance(shape[0], int))
    return tuple(range(1, len(shape))) if is_one and depth == len(shape) - 1 else None


def _depth(column: pa.DataType) -> tuple[int, pa.DataType]:
    """Return the number of nested lists, and the type of the elements."""
    depth = 0
    while True:
        shape = tensor_shape(column)
        if shape:
            depth, column = depth + len(shape), column.storage_type.value_type
            continue
        simpler = simple_type(column.storage_type if isinstance(column, pa.BaseExtensionType) else column)
        if is_list(simpler):
            depth, column = depth + 1, simpler.value_type
        elif simpler is column:
            return depth, column
        else:
            column = simpler


def tensor_shape(kind: pa.DataType) -> tuple[int, ...] | None:
    """Return the shape of a tensor type, of Arrow or another library, that stores flat lists; None for other types."""
    shape = getattr(kind, "shape", None) if isinstance(kind, pa.BaseExtensionType) else None
    if not shape or not is_list(kind.storage_type) or not all(isinstance(size, int) for size in shape):
        return None
    return tuple(shape)


def simple_type(kind: pa.DataType) -> pa.DataType:
    """Return the plain type of views, dictionaries and run-length encoding; else ``kind`` itself."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return simple_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(kind.value_type)
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Return True for lists, other than list views."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return True for texts, other than string views."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_binary(kind: pa.DataType) -> bool:
    """Return True for bytes, other than binary views."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_number(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind))
