"""Columns as tensors: what a bad row says, dimensions that lists leave out, and rows along other axes.

That values are right in every layout is in tests/property/batch/test_column_tensors.py.
"""

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.tensors import Dense, Ragged, column_tensor, concatenated, from_batch_axis, stacked, to_batch_axis
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import TensorSpec


def _spec(datatype: str, *shape: int | str | None, batch_axis: int | None = 0) -> TensorSpec:
    return TensorSpec(name="x", datatype=BY_NAME[datatype], shape=shape, batch_axis=batch_axis)


@pytest.mark.parametrize(
    ("spec", "column", "text"),
    [
        (_spec("FP32", "rows"), pa.array([1.0, None, 2.0]), "expected FP32 [], got null"),
        (
            _spec("FP32", "rows", 2),
            pa.array([[1.0, 2], [1, None], [3, 4]]),
            "expected FP32 [2], got null among its values",
        ),
        (_spec("FP32", "rows", 2), pa.array([[1.0, 2], [1], [3, 4]]), "expected FP32 [2], got shape [1]"),
        (_spec("FP32", "rows", 2), pa.array([[1.0, 2], None, [3, 4]]), "expected FP32 [2], got null"),
        (
            _spec("INT8", "rows", "n", 2),
            pa.array([[[1, 2]], [[1, 2], [3]], [[3, 4], [5, 6]]]),
            "expected INT8 [n,2], got lists of 2 and of 1 beside each other",
        ),
        (
            _spec("INT8", "rows", "n", 2),
            pa.array([[[1, 2]], [[1, 2, 3]], [[3, 4], [5, 6]]]),
            "expected INT8 [n,2], got shape [1,3]",
        ),
        (
            _spec("INT8", "rows", "n", None),
            pa.array([[[1, 2]], [[1], None], [[3, 4], [5, 6]]]),
            "expected INT8 [n,-1], got null among its values",
        ),
        (_spec("INT8", "rows"), pa.array([1, 300, 2]), "expected INT8 [], got 300"),
        (_spec("UINT64", "rows"), pa.array([1, -1, 2]), "expected UINT64 [], got -1"),
        (
            _spec("INT64", "rows"),
            pa.array([1, 2**64 - 1, 2], pa.uint64()),
            "expected INT64 [], got 18446744073709551615",
        ),
        (_spec("INT64", "rows"), pa.array([1.0, 1.5, 2.0]), "expected INT64 [], got 1.5"),
        (_spec("INT64", "rows"), pa.array([1.0, float("nan"), 2.0]), "expected INT64 [], got nan"),
        (_spec("INT64", "rows"), pa.array([1.0, 2.0**63, 2.0]), "expected INT64 [], got 9.223372036854776e+18"),
        (_spec("INT32", "rows"), pa.array([Decimal(1), Decimal("1.5"), Decimal(2)]), "expected INT32 [], got 1.5"),
        (_spec("BOOL", "rows"), pa.array([1, 2, 0]), "expected BOOL [], got 2"),
        (_spec("FP16", "rows"), pa.array([1, 70000, 2]), "expected FP16 [], got 70000"),
        (_spec("FP32", "rows"), pa.array([1, 1e39, 2]), "expected FP32 [], got 1e+39"),
        (_spec("BYTES", "rows"), pa.array([b"a", b"\xff\x00", b"b"]), r"expected BYTES [], got b'\xff\x00'"),
        (_spec("BYTES", "rows"), pa.array(["a", None, "b"]), "expected BYTES [], got null"),
        (
            _spec("BYTES", "rows"),
            pa.array([b"a", b"\xff" * 100, b"b"]),
            "expected BYTES [], got b'" + r"\xff" * 14 + r"\x…",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_rows_say_what_came(spec, column, text):
    """A bad row has one error, with what was expected and what came; its neighbours have their values."""
    tensor, bad = column_tensor(spec, column)
    assert bad == {1: text}
    kept = tensor.select(np.array([True, False, True]))
    for at, row in ((0, 0), (1, 2)):
        expected = column[row].as_py()
        expected = expected.encode() if isinstance(expected, str) else expected
        assert kept.rows(slice(at, at + 1)).tolist() == [expected]


def test_text_that_is_none():
    """A column of texts may hold other bytes, which its type does not say."""
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    tensor, bad = column_tensor(_spec("BYTES", "rows"), column)
    assert bad == {1: r"expected BYTES [], got b'\xff'"}
    assert tensor.rows(slice(0, 2)).tolist() == [b"a", b""]


def test_only_bad_rows():
    """A block without a good row has a tensor all the same."""
    for column in (pa.array([None, None], pa.list_(pa.float32())), pa.array([[1.0], [1.0, 2, 3, 4]])):
        tensor, bad = column_tensor(_spec("FP32", "rows", 2), column)
        assert sorted(bad) == [0, 1]
        assert len(tensor.select(np.zeros(2, np.bool_))) == 0


def test_no_rows():
    """A block without rows has tensors without rows."""
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.fixed_shape_tensor(pa.float32(), (2,))):
        tensor, bad = column_tensor(_spec("FP32", "rows", 2), pa.array([], kind))
        assert (len(tensor), bad) == (0, {})


@pytest.mark.parametrize(
    ("column", "shape", "expected"),
    [
        (pa.array([1.0, 2.0]), (1,), (2, 1)),
        (pa.array([1.0, None]), (1, 1), (2, 1, 1)),
        (pa.array([[1.0, 2], [3, 4]]), (1, 2, 1), (2, 1, 2, 1)),
        (pa.array([[[1.0, 2]], [[3, 4]]]), (1, 2), (2, 1, 2)),
    ],
)
def test_dimensions_of_one_may_be_left_out(column, shape, expected):
    """Lists may be without the dimensions of size 1."""
    tensor, _ = column_tensor(_spec("FP32", "rows", *shape), column)
    assert tensor.rows(slice(0, 2)).shape == expected


def test_whole_requests_may_leave_out_their_first_dimension():
    """Its first dimension is 1 where the lists leave it out, also where rows differ."""
    spec = _spec("INT64", "rows", "n", batch_axis=None)
    tensor, _ = column_tensor(spec, pa.array([[1, 2], [3]]))
    assert isinstance(tensor, Ragged)
    assert tensor.shapes.tolist() == [[1, 2], [1, 1]]
    assert to_batch_axis(spec, tensor.rows(slice(0, 1))).tolist() == [[1, 2]]


def test_empty_lists_have_the_size_they_should():
    """An empty list of lists has inner lists of the model's size, or of its type's."""
    for column in (pa.array([[], [[1, 2]]]), pa.array([[], [[1, 2]]], pa.list_(pa.list_(pa.int64(), 2)))):
        for inner in (2, None) if pa.types.is_fixed_size_list(column.type.value_type) else (2,):
            tensor, bad = column_tensor(_spec("INT64", "rows", "n", inner), column)
            assert bad == {}
            assert tensor.shapes.tolist() == [[0, 2], [1, 2]]
            assert tensor.rows(np.array([0])).shape == (1, 0, 2)


class _FlatTensors(pa.ExtensionType):
    """Tensors of another library: flat lists, whose shape is the type's."""

    shape = (2, 3)

    def __init__(self) -> None:
        super().__init__(pa.large_list(pa.int64()), "tests.flat_tensors")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


def test_tensors_of_other_libraries():
    """A type with a shape and flat lists is read as such, null rows too."""
    storage = pa.array([list(range(6)), None, list(range(6, 12))], pa.large_list(pa.int64()))
    column = pa.ExtensionArray.from_storage(_FlatTensors(), storage)
    tensor, bad = column_tensor(_spec("FP32", "rows", 2, 3), column)
    assert bad == {1: "expected FP32 [2,3], got null"}
    assert tensor.rows(np.array([0, 2])).tolist() == np.arange(12).reshape(2, 2, 3).tolist()


def test_several_columns_are_one_dimension():
    """Each column has one element of each row."""
    element = _spec("FP32", batch_axis=None)
    columns = (pa.array([1, 2, None]), pa.array([0.5, 1.5, 2.5]))
    tensor = stacked([column_tensor(element, column)[0] for column in columns])
    assert tensor.rows(slice(0, 2)).tolist() == [[1, 0.5], [2, 1.5]]


@pytest.mark.parametrize("lists", [[[1, 2], [3, 4], None, [5, 6]], [[1], [2, 3], None, [4, 5]], [None, None, [1], [2]]])
@pytest.mark.parametrize("cuts", [(0, 4), (0, 1, 4), (0, 2, 3, 4)])
def test_pieces_are_what_the_whole_is(lists: list[list[int] | None], cuts: tuple[int, ...]):
    """Wherever a column is cut; a bad row has the shape of no other."""
    spec, column = _spec("INT64", "rows", "n"), pa.array(lists)
    whole, bad = column_tensor(spec, column)
    pieces = [column_tensor(spec, column[start:stop])[0] for start, stop in pairwise(cuts)]
    joined = concatenated(pieces, bad)
    assert type(joined) is type(whole)
    for row, values in enumerate(lists):
        if values is not None:
            assert joined.rows(slice(row, row + 1)).tolist() == [values]


def test_rows_along_another_axis():
    """Rows are moved to the axis that the model has them on, and back."""
    spec = _spec("FP32", 3, "rows", 2, batch_axis=1)
    array = np.arange(24).reshape(4, 3, 2)
    moved = to_batch_axis(spec, array)
    assert moved.shape == (3, 4, 2)
    assert np.array_equal(moved[:, 1], array[1])
    assert np.array_equal(from_batch_axis(spec, moved), array)
    for shape in ((), (3,)):
        shared = to_batch_axis(_spec("FP32", *shape, batch_axis=None), np.zeros((4, *shape)))
        assert isinstance(shared, np.ndarray)
        assert shared.shape == shape


def test_memory_of_tensors():
    """Texts count with their contents."""
    assert Dense(np.zeros((2, 3), np.float32)).nbytes == 24
    assert Dense(np.array([b"ab", b""], object)).nbytes == 16 + 2
    assert Ragged(np.zeros(3), np.array([0, 1, 3]), np.array([[1], [2]])).nbytes == 24
