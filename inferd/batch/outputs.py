"""Convert the outputs of batches to columns, in the order of the rows."""

from collections.abc import Mapping, Sequence
from math import prod

import ml_dtypes
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.binding import ROW, SOURCE, Binding
from inferd.batch.blocks import Origin, Selection
from inferd.batch.column_types import row_shape
from inferd.batch.errors import RUN_FAILED, RowsFailedError
from inferd.batch.tensors import from_batch_axis
from inferd.runtime.signature import Array, ModelSignature, TensorSpec, format_shape


class OutputRows:
    """The outputs of the batches of a block of ``rows`` rows. Not thread-safe."""

    def __init__(self, binding: Binding, signature: ModelSignature, rows: int) -> None:
        self._binding = binding
        self._specs = {spec.name: spec for spec in signature.outputs if spec.name in binding.outputs}
        self._rows = rows
        self._given: list[NDArray[np.int64]] = []
        self._arrays: dict[str, list[Array]] = {name: [] for name in binding.outputs}

    def put(self, selection: Selection, outputs: Mapping[str, Array]) -> None:
        """Add the outputs of a batch of the rows ``selection``; the arrays must not change later.

        Raises `RowsFailedError`, and adds nothing, if the outputs are not as the model declares them.
        """
        rows = np.arange(*selection.indices(self._rows)) if isinstance(selection, slice) else selection
        arrays = {name: _row_values(spec, outputs[name], len(rows)) for name, spec in self._specs.items()}
        for name, array in arrays.items():
            self._arrays[name].append(array)
        self._given.append(rows)

    def finish(self, joined: pa.RecordBatch, origin: Origin, sources: Sequence[str]) -> pa.RecordBatch:
        """Return the rows with outputs, in order, with the ``joined`` columns and, with ``row_ids``, their origin."""
        given = np.concatenate(self._given) if self._given else np.empty(0, np.int64)
        is_in_order = bool((given[:-1] < given[1:]).all())
        # None keeps the order.
        order = None if is_in_order else np.argsort(given)
        rows = given if order is None else given[order]
        schema = self._binding.output_schema
        columns: dict[str, pa.Array] = {}
        if self._binding.row_ids:
            columns[SOURCE] = pa.array(sources, pa.string()).take(pa.array(origin.files[rows]))
            columns[ROW] = pa.array(origin.rows[rows])
        for name in self._binding.joined:
            column = joined.column(name)
            columns[name] = column if len(rows) == self._rows else column.take(pa.array(rows))
        for name, arrays in self._arrays.items():
            field = schema.field(self._binding.outputs[name])
            columns[field.name] = _column(arrays, field.type, order)
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _row_values(spec: TensorSpec, array: Array, rows: int) -> Array:
    """Return an output as ``[rows, *shape]``. Raises `RowsFailedError`."""
    is_right = array.ndim == len(spec.shape)
    if is_right and spec.batch_axis is not None:
        array = from_batch_axis(spec, array)
        is_right = len(array) == rows
    elif is_right:
        # An output without a batch axis is repeated for each row.
        array = np.broadcast_to(array, (rows, *array.shape))
    shape = row_shape(spec)
    if is_right and all(
        size == got or not isinstance(size, int) for size, got in zip(shape, array.shape[1:], strict=True)
    ):
        return array
    expected = f"{format_shape(shape)} for each of {rows} rows"
    raise RowsFailedError(
        RUN_FAILED, f'output "{spec.name}": expected {expected}, as the model declares, got {format_shape(array.shape)}'
    )


def _column(arrays: Sequence[Array], kind: pa.DataType, order: NDArray[np.int64] | None) -> pa.Array:
    """Return the rows of ``arrays`` in ``order`` as a column of type ``kind``."""
    if not arrays:
        return pa.array([], kind)
    if len({array.shape[1:] for array in arrays}) == 1:
        rows = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        return _lists(rows if order is None else rows[order], kind)
    column = pa.concat_arrays([_lists(array, kind) for array in arrays])
    return column if order is None else column.take(pa.array(order))


def _lists(rows: Array, kind: pa.DataType) -> pa.Array:
    levels = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        levels.append(kind)
        kind = kind.value_type
    column = _elements(rows)
    for axis, level in reversed(list(enumerate(levels, start=1))):
        size = rows.shape[axis]
        if pa.types.is_fixed_size_list(level):
            column = _fixed_lists(column, size, prod(rows.shape[:axis]))
        else:
            offsets = np.arange(prod(rows.shape[:axis]) + 1, dtype=np.int64) * size
            column = pa.ListArray.from_arrays(pa.array(offsets).cast(pa.int32()), column)
    return column


def _fixed_lists(values: pa.Array, size: int, count: int) -> pa.FixedSizeListArray:
    if size:
        return pa.FixedSizeListArray.from_arrays(values, size)
    # The number of empty lists cannot be derived from their elements.
    return pa.array([[]] * count, pa.list_(values.type, 0))


def _elements(values: Array) -> pa.Array:
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.hasobject:
        return pa.array(flat, pa.binary()).cast(pa.string())
    return pa.array(flat.astype(np.float32) if flat.dtype == ml_dtypes.bfloat16 else flat)
