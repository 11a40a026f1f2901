"""Into how many sub-batches idle workers split what waits."""

import pytest

from inferd.batching.adaptive import sub_batches


@pytest.mark.parametrize(("rows", "found"), [(1, 1), (9, 1), (10, 2), (29, 2), (30, 3), (49, 3), (50, 4), (1_000, 4)])
def test_shares_take_at_most_half_as_long_again_together(rows, found):
    """A run's fixed part is worth ten rows, and each share pays it again."""
    assert sub_batches(rows, most=4, fixed_s=0.01, row_s=0.001) == found


@pytest.mark.parametrize("rows", [2, 64, 1_000])
def test_runs_that_take_as_long_whatever_their_size_are_not_shared(rows):
    """Two would be done no sooner than one."""
    assert sub_batches(rows, most=4, fixed_s=0.01, row_s=0.0) == 1


@pytest.mark.parametrize(("row_s", "found"), [(0.000_001, 1), (0.000_009, 1), (0.000_01, 2)])
def test_nobody_is_woken_to_save_next_to_nothing(row_s, found):
    """Half of 64 rows at 9 µs each is less than what it takes to wake a thread."""
    assert sub_batches(64, most=2, fixed_s=0.0, row_s=row_s) == found


def test_without_a_fixed_part_everyone_takes_a_share():
    """Running together saves nothing then."""
    assert sub_batches(64, most=8, fixed_s=0.0, row_s=0.01) == 8


def test_no_share_is_empty():
    """Of three rows there are three at most."""
    assert sub_batches(3, most=8, fixed_s=0.0, row_s=0.01) == 3
