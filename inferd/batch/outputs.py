"""Outputs of batches as columns, in the order of their rows."""

from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.binding import ROW, SOURCE, Binding
from inferd.batch.blocks import Origin, Selection
from inferd.batch.errors import BatchError
from inferd.batch.tensors import from_batch_axis
from inferd.plain_text import clipped
from inferd.runtime.signature import Array, ModelSignature, TensorSpec


class OutputRows:
    """The outputs of one block of ``rows`` rows. Not thread-safe."""

    def __init__(self, binding: Binding, signature: ModelSignature, rows: int) -> None:
        self._binding = binding
        self._specs = {spec.name: spec for spec in signature.outputs if spec.name in binding.outputs}
        self._rows = rows
        self._given: list[NDArray[np.int64]] = []
        self._columns: dict[str, list[pa.Array]] = {name: [] for name in binding.outputs}

    def put(self, selection: Selection, outputs: Mapping[str, Array]) -> None:
        """Add what a batch of the rows ``selection`` gave. Raises `BatchError` for shapes that the model denies."""
        rows = np.arange(self._rows)[selection]
        for name, spec in self._specs.items():
            field = self._binding.output_schema.field(self._binding.outputs[name])
            self._columns[name].append(_column(spec, _row_values(spec, outputs[name], len(rows)), field.type))
        self._given.append(rows)

    def finish(self, joined: pa.RecordBatch, origin: Origin, sources: Sequence[str]) -> pa.RecordBatch:
        """Return the rows that have outputs, in order, with the ``joined`` columns and, if wanted, their ids."""
        schema = self._binding.output_schema
        given = np.concatenate(self._given) if self._given else np.empty(0, np.int64)
        order = np.argsort(given)
        in_order = given[order]
        columns: dict[str, pa.Array] = {}
        if self._binding.row_ids:
            columns[SOURCE] = pa.array(sources, pa.string()).take(pa.array(origin.files[in_order]))
            columns[ROW] = pa.array(origin.rows[in_order])
        is_whole = len(given) == self._rows
        for name in self._binding.joined:
            column = joined.column(name)
            columns[name] = column if is_whole else column.take(pa.array(in_order))
        for name, parts in self._columns.items():
            field = schema.field(self._binding.outputs[name])
            column = pa.concat_arrays(parts) if parts else pa.array([], field.type)
            columns[field.name] = column if bool((order[:-1] < order[1:]).all()) else column.take(pa.array(order))
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _row_values(spec: TensorSpec, array: Array, rows: int) -> Array:
    """Return an output as ``[rows, *shape]``."""
    if spec.batch_axis is not None:
        return from_batch_axis(spec, array)
    return array[None] if rows == 1 else np.broadcast_to(array, (rows, *array.shape))


def _column(spec: TensorSpec, values: Array, kind: pa.DataType) -> pa.Array:
    column = _elements(values)
    levels = []
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        levels.append(kind)
        kind = kind.value_type
    if len(levels) != values.ndim - 1:
        raise _wrong_shape(spec, values)
    for axis in range(len(levels), 0, -1):
        level, size = levels[axis - 1], values.shape[axis]
        if pa.types.is_list(level):
            count = int(np.prod(values.shape[:axis]))
            column = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size, pa.int32()), column)
        elif size == level.list_size:
            column = pa.FixedSizeListArray.from_arrays(column, size)
        else:
            raise _wrong_shape(spec, values)
    return column


def _elements(values: Array) -> pa.Array:
    flat = np.ascontiguousarray(values).reshape(-1)
    if flat.dtype.hasobject:
        return pa.array(flat.tolist(), pa.binary()).cast(pa.string())
    return pa.array(flat.astype(np.float32) if flat.dtype == ml_dtypes.bfloat16 else flat)


def _wrong_shape(spec: TensorSpec, values: Array) -> BatchError:
    declared = clipped(str(list(spec.shape)))
    return BatchError(f'output "{spec.name}": the model declares {declared}, and gave rows of {list(values.shape[1:])}')
