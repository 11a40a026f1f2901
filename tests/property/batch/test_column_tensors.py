"""A column as a tensor is what NumPy makes of each row by itself, in every layout that Arrow has for the column."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.batch.blocks import ColumnTensor
from inferd.batch.column_types import nested_type
from inferd.batch.tensors import Dense, Ragged, column_tensor
from inferd.dtypes import ALL, BYTES, DataType
from inferd.runtime.signature import TensorSpec

_NUMBERS = [datatype for datatype in ALL if datatype is not BYTES]
_SOURCES = [
    pa.bool_(),
    *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(pa.float16(), pa.float32(), pa.float64()),
    pa.decimal128(38, 2),
    pa.decimal256(50, 3),
]
#: Values at the ends of what types hold.
_EDGES = [
    *(sign * 2**bits + off for bits in (0, 7, 8, 15, 16, 31, 32, 53, 62, 63) for off in (-1, 0, 1) for sign in (1, -1)),
    2**64 - 1,
    *(0.5, -0.5, 1.5, 3e38, 1e39, -1e39, 65504.0, 65520.0, 1e-46, math.inf, -math.inf, math.nan, -0.0),
]
_SIZES = st.integers(0, 3)


def _in_source(value: float, kind: pa.DataType) -> Any:
    """Return ``value``, or one near it, as a value of a column of type ``kind``."""
    if pa.types.is_boolean(kind):
        return bool(value)
    if pa.types.is_decimal(kind):
        return Decimal(int(value * 2)) / 2 if abs(value) < 1e30 else Decimal(3)
    if pa.types.is_integer(kind):
        bounds = np.iinfo(kind.to_pandas_dtype())
        return min(max(int(value), int(bounds.min)), int(bounds.max)) if math.isfinite(value) else 0
    with np.errstate(over="ignore"):
        return np.asarray(float(value), kind.to_pandas_dtype())[()]


def _element(value: Any, datatype: DataType) -> np.generic | None:
    """Return ``value`` in the ``datatype`` of a model; None if it cannot be one."""
    if value is None:
        return None
    if datatype is BYTES:
        text: bytes = value.encode() if isinstance(value, str) else value
        try:
            text.decode()
        except UnicodeDecodeError:
            return None
        return text
    if isinstance(value, Decimal) and datatype.numpy.kind not in "biu":
        value = float(value)
    if datatype.numpy.kind in "biu":
        low, high = (
            (0, 1) if datatype.numpy.kind == "b" else (np.iinfo(datatype.numpy).min, np.iinfo(datatype.numpy).max)
        )
        if value != value or abs(value) == math.inf or int(value) != value or not low <= int(value) <= high:
            return None
        return datatype.numpy.type(int(value))
    with np.errstate(over="ignore"):
        # As a scalar of its own type, from which NumPy rounds once.
        given = value if isinstance(value, np.generic) else np.asarray(value)
        found = given.astype(datatype.numpy)
    return None if np.isinf(found) and not np.isinf(float(value)) else found[()]


def _row(value: Any, shape: tuple[int | None, ...], datatype: DataType) -> np.ndarray | None:
    """Return one row as a tensor, by itself; None if it is none."""
    if not shape:
        element = _element(value, datatype)
        return None if element is None else np.array(element, datatype.numpy)
    if value is None or (shape[0] is not None and len(value) != shape[0]):
        return None
    parts = [_row(part, shape[1:], datatype) for part in value]
    if any(part is None for part in parts) or len({part.shape for part in parts}) > 1:
        return None
    inner = parts[0].shape if parts else tuple(size or 0 for size in shape[1:])
    found = np.empty((len(parts), *inner), datatype.numpy)
    for at, part in enumerate(parts):
        found[at] = part if part.ndim else part[()]
    return found


def _in_layout(column: pa.Array, layout: str, draw: st.DrawFn) -> pa.Array:
    """Return the rows of ``column`` in another layout."""
    kind = column.type
    if layout == "slice":
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        filler = column.take(pa.array(np.zeros(max(before, after), np.int64))) if len(column) else column
        padded = pa.concat_arrays([filler[:before], column, filler[:after]])
        return padded.slice(min(before, len(filler)), len(column))
    if layout == "dictionary":
        order = np.array(draw(st.permutations(range(len(column)))), np.int64)
        indices = np.argsort(order).astype(np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(indices), column.take(pa.array(order)))
    if layout == "run ends":
        ends = pa.array(np.arange(1, len(column) + 1), pa.int32())
        return pa.RunEndEncodedArray.from_arrays(ends, column)
    if layout == "view":
        return column.cast({pa.string(): pa.string_view(), pa.binary(): pa.binary_view()}.get(kind, kind))
    if layout == "large":
        return column.cast({pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}.get(kind, kind))
    return column


def _lists(values: list[Any], kind: pa.DataType, style: str, depth: int) -> pa.Array:
    for _ in range(depth):
        kind = {"list": pa.list_, "large": pa.large_list, "view": pa.list_view}[style](kind)
    return pa.array(values, kind)


def _check(spec: TensorSpec, column: pa.Array, rows: list[np.ndarray | None]) -> None:
    tensor, bad = column_tensor(spec, column)
    assert sorted(bad) == [at for at, row in enumerate(rows) if row is None], bad
    assert all(text.startswith(f"expected {spec.datatype.name} [") and ", got " in text for text in bad.values())
    assert len(tensor) == len(rows)
    good = np.array([row is not None for row in rows], np.bool_)
    _check_rows(tensor, rows)
    kept = [row for row in rows if row is not None]
    selected = tensor.select(good)
    assert len(selected) == len(kept)
    _check_rows(selected, kept)


def _check_rows(tensor: ColumnTensor, rows: list[np.ndarray | None]) -> None:
    for at, row in enumerate(rows):
        if row is None:
            continue
        for selection in (slice(at, at + 1), np.array([at])):
            got = tensor.rows(selection)
            assert got.dtype == row.dtype
            assert got.shape == (1, *row.shape)
            assert _same(got, row[None])
        if tensor.shapes is not None:
            assert tuple(tensor.shapes[at]) == row.shape
            alike = np.array([i for i, other in enumerate(rows) if other is not None and other.shape == row.shape])
            assert _same(tensor.rows(alike), np.stack([rows[i] for i in alike]))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype.hasobject:
        return one.tolist() == other.tolist()
    # NaN has many bits, and casts keep some of them.
    return one.shape == other.shape and bool(np.all((one == other) | ((one != one) & (other != other))))


@st.composite
def _columns(draw: st.DrawFn, element: st.SearchStrategy[Any]) -> tuple[list[Any], tuple[int | None, ...], int]:
    """Draw rows of lists in each other, mostly of one shape, the shape of the model, and the depth of the lists."""
    depth = draw(st.integers(0, 3))
    usual = draw(st.tuples(*[_SIZES] * depth))
    is_ragged, has_nulls = draw(st.booleans()), draw(st.booleans())

    def value(sizes: tuple[int, ...], level: int) -> Any:
        if has_nulls and draw(st.integers(0, 9)) == 0:
            return None
        if level == depth:
            return draw(element)
        odd = draw(st.integers(0, 19)) == 0
        return [value(sizes, level + 1) for _ in range(draw(_SIZES) if odd else sizes[level])]

    rows = []
    for _ in range(draw(st.integers(0, 6))):
        own = draw(st.tuples(*[_SIZES] * depth)) if is_ragged else usual
        rows.append(value(own, 0))
    shape = tuple(size if draw(st.booleans()) else None for size in usual)
    return rows, shape, depth


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_numbers_are_those_of_each_row_by_itself(data: st.DataObject) -> None:
    """Any type of numbers, in any layout, becomes each datatype or an error of its row only."""
    source, datatype = data.draw(st.sampled_from(_SOURCES)), data.draw(st.sampled_from(_NUMBERS))
    small = st.sampled_from([0, 1, 1, 2, 7])
    numbers = (small | st.sampled_from(_EDGES)).map(lambda value: _in_source(value, source))
    values, shape, depth = data.draw(_columns(numbers))
    column = _lists(values, source, data.draw(st.sampled_from(["list", "large", "view"])), depth)
    column = _in_layout(column, data.draw(st.sampled_from(["plain", "slice", "dictionary", "run ends"])), data.draw)
    spec = TensorSpec(name="x", datatype=datatype, shape=("rows", *shape), batch_axis=0)
    _check(spec, column, [_row(value, shape, datatype) for value in values])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_texts_are_those_of_each_row_by_itself(data: st.DataObject) -> None:
    """Texts in any layout become bytes, and those that are no UTF-8 cost their row only."""
    source = data.draw(st.sampled_from([pa.string(), pa.binary()]))
    texts = st.text(max_size=20)
    element = texts if source == pa.string() else texts.map(str.encode) | st.binary(max_size=3)
    values, shape, depth = data.draw(_columns(element))
    column = _lists(values, source, data.draw(st.sampled_from(["list", "large", "view"])), depth)
    layout = data.draw(st.sampled_from(["plain", "slice", "dictionary", "run ends", "view", "large"]))
    if depth == 0 or layout not in {"view", "large"}:
        column = _in_layout(column, layout, data.draw)
    spec = TensorSpec(name="x", datatype=BYTES, shape=("rows", *shape), batch_axis=0)
    _check(spec, column, [_row(value, shape, BYTES) for value in values])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_lists_of_fixed_sizes_and_tensors_are_those_of_each_row(data: st.DataObject) -> None:
    """Nested lists of fixed sizes and Arrow's tensors, with null rows and as slices, have their rows' values."""
    shape = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple))
    rows = data.draw(st.integers(0, 5))
    nulls = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), np.bool_)
    given = np.arange(rows * math.prod(shape), dtype=np.int16).reshape(rows, *shape)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(given.ravel()), math.prod(shape), mask=pa.array(nulls))
    order = data.draw(st.permutations(range(len(shape))))
    if data.draw(st.booleans()):
        kind = pa.fixed_shape_tensor(pa.int16(), shape, permutation=order)
        column = pa.ExtensionArray.from_storage(kind, flat)
        given = given.transpose(0, *(axis + 1 for axis in order))
    else:
        values = [None if is_null else row.tolist() for row, is_null in zip(given, nulls, strict=True)]
        column = pa.array(values, nested_type(pa.int16(), shape))
    start = data.draw(st.integers(0, rows))
    datatype = data.draw(st.sampled_from(_NUMBERS[2:]))
    spec = TensorSpec(name="x", datatype=datatype, shape=("rows", *given.shape[1:]), batch_axis=0)
    values = [None if is_null else row.tolist() for row, is_null in zip(given, nulls, strict=True)]
    _check(spec, column[start:], [_row(value, given.shape[1:], datatype) for value in values[start:]])


def test_views_and_copies() -> None:
    """Rows of the model's own type are views of the column, and only rows of different shapes are ragged."""
    numbers = pa.array(np.arange(12, dtype=np.float32))
    spec = TensorSpec(name="x", datatype=ALL[10], shape=("rows", 3), batch_axis=0)
    for column in (
        pa.FixedSizeListArray.from_arrays(numbers, 3),
        pa.ListArray.from_arrays(pa.array([0, 3, 6, 9, 12], pa.int32()), numbers),
    ):
        tensor, _ = column_tensor(spec, column[1:])
        assert isinstance(tensor, Dense)
        assert np.shares_memory(tensor.rows(slice(1, 3)), numbers.to_numpy())
    ragged, _ = column_tensor(
        TensorSpec(name="x", datatype=ALL[10], shape=("rows", "n"), batch_axis=0),
        pa.ListArray.from_arrays(pa.array([0, 3, 6, 12], pa.int32()), numbers),
    )
    assert isinstance(ragged, Ragged)
    assert np.shares_memory(ragged.rows(slice(0, 2)), numbers.to_numpy())
