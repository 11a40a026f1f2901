"""The parts of a job."""

import json

import pytest

from inferd.batch.blocks import BatchLimits
from inferd.batch.plan import Part, Plan, Range, cut, from_json, until


def ranges(part):
    return [(each.file, each.start, each.stop) for each in part.ranges]


def test_small_files_share_parts():
    """Up to the wanted rows."""
    parts = cut([[3], [4], [5], [6]], 8)
    assert [ranges(part) for part in parts] == [[(0, 0, 3), (1, 0, 4)], [(2, 0, 5)], [(3, 0, 6)]]
    assert [part.index for part in parts] == [0, 1, 2]


def test_long_spans_are_cut_into_equal_pieces():
    """Of at most the wanted rows."""
    assert [ranges(part) for part in cut([[25]], 10)] == [[(0, 0, 8)], [(0, 8, 16)], [(0, 16, 25)]]


def test_parts_end_with_spans():
    """What can be read without what is before it stays whole if it is not longer than a part."""
    assert [ranges(part) for part in cut([[6, 6, 6]], 12)] == [[(0, 0, 12)], [(0, 12, 18)]]


def test_damaged_and_empty_files():
    """A file whose rows are not known is a range without rows; a job without rows has one part, for its schema."""
    assert [ranges(part) for part in cut([[2], None, [], [3]], 10)] == [[(0, 0, 2), (1, 0, 0), (3, 0, 3)]]
    assert cut([[], []], 10) == (Part(0, ()),)


@pytest.mark.parametrize("indexes", [1, 2, 3, 7])
def test_shares_are_disjoint_and_complete(indexes):
    """Every part is some process' own."""
    plan = Plan(limits=BatchLimits(4, 100), block_rows=8, parts=cut([[100], [7]], 10))
    shares = [plan.share(index, indexes) for index in range(indexes)]
    assert sorted((part for share in shares for part in share), key=lambda part: part.index) == list(plan.parts)


def test_plan_as_json():
    """Is the same when it is read again."""
    plan = Plan(limits=BatchLimits(4, 100), block_rows=8, parts=(Part(0, (Range(0, 0, 5), Range(1, 0, 0))),))
    assert from_json(json.loads(json.dumps(plan.as_json()))) == plan
    assert plan.rows == 5


@pytest.mark.parametrize(
    ("file", "row", "expected"),
    [(0, 4, [[4]]), (0, 0, [[]]), (1, 7, [[5, 5], [7]]), (1, 0, [[5, 5], []]), (2, 0, [[5, 5], [9], []])],
)
def test_limited_spans(file, row, expected):
    """Nothing is left of what comes after the first row that is not wanted."""
    assert until([[5, 5], [9]], file, row) == expected
