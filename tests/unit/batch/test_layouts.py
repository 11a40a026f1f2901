"""The same values in other layouts of Arrow."""

import pyarrow as pa
import pytest

from inferd.batch.layouts import plain, without_list_views

_ROWS = [[[1, 2], [3]], None, [[], None], [], [[4], [5, 6, None]]]


@pytest.mark.parametrize(
    "outer", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("inner", [pa.list_view, pa.large_list_view], ids=lambda kind: kind.__name__)
def test_lists_in_place_of_views(outer, inner):
    """All slices of lists in each other have their rows' values."""
    column = pa.array(_ROWS, outer(inner(pa.int64())))
    for start in range(len(_ROWS)):
        for stop in range(start, len(_ROWS) + 1):
            lists = without_list_views(column[start:stop])
            lists.validate(full=True)
            assert lists.type == pa.large_list(pa.large_list(pa.int64()))
            assert lists.to_pylist() == _ROWS[start:stop]


def test_views_that_share_elements():
    """Views may be in any order, and have elements in common."""
    views = pa.ListViewArray.from_arrays(pa.array([3, 0, 1]), pa.array([2, 2, 3]), pa.array([1, 2, 3, 4, 5]))
    assert without_list_views(views).to_pylist() == plain(views).to_pylist() == [[4, 5], [1, 2], [2, 3, 4]]
    assert without_list_views(views[1:]).to_pylist() == [[1, 2], [2, 3, 4]]


def test_columns_without_views_stay():
    """Other columns are not copied."""
    column = pa.array([[1], [2, 3]])
    assert without_list_views(column) is column


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()], ids=str)
def test_views_of_texts(kind):
    """Short and long texts, of all slices."""
    texts = ["a", None, "x" * 50, "", "y" * 40]
    values = texts if kind == pa.string_view() else [None if text is None else text.encode() for text in texts]
    column = pa.array(values, kind)
    for start in range(len(texts)):
        assert plain(column[start:]).to_pylist() == values[start:]


def test_dictionaries_of_dictionaries():
    """Layouts may be in each other."""
    words = pa.array(["a", "b", None, "a"]).dictionary_encode()
    twice = pa.DictionaryArray.from_arrays(pa.array([3, 1, 0, 2], pa.int8()), words)
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]).dictionary_encode())
    assert plain(twice).to_pylist() == ["a", "b", "a", None]
    assert plain(runs[1:]).to_pylist() == ["a", None]


def test_runs_of_lists():
    """Runs of any type are decoded, of all slices."""
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1, 3, 5], pa.int16()), pa.array([[1], None, [2, 3]]))
    rows = [[1], None, None, [2, 3], [2, 3]]
    for start in range(5):
        for stop in range(start, 6):
            assert plain(runs[start:stop]).to_pylist() == rows[start:stop]
