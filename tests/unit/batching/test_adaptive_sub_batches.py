"""The number of sub-batches that idle workers split a queue into."""

import pytest

from inferd.batching.adaptive import sub_batches


@pytest.mark.parametrize(("rows", "found"), [(1, 1), (9, 1), (10, 2), (29, 2), (30, 3), (49, 3), (50, 4), (1_000, 4)])
def test_sharing_costs_at_most_half_as_much_again(rows, found):
    """The fixed part of a run is worth ten rows, and each share pays it again."""
    assert sub_batches(rows, most=4, fixed_s=0.01, row_s=0.001) == found


@pytest.mark.parametrize("rows", [2, 64, 1_000])
def test_does_not_share_runs_of_constant_duration(rows):
    """Two would end no sooner than one."""
    assert sub_batches(rows, most=4, fixed_s=0.01, row_s=0.0) == 1


@pytest.mark.parametrize(("row_s", "found"), [(0.000_001, 1), (0.000_009, 1), (0.000_01, 2)])
def test_does_not_wake_workers_for_tiny_savings(row_s, found):
    """Half of 64 rows at 9 µs each is less than waking a thread takes."""
    assert sub_batches(64, most=2, fixed_s=0.0, row_s=row_s) == found


def test_all_workers_share_without_a_fixed_cost():
    """Running rows together then saves nothing."""
    assert sub_batches(64, most=8, fixed_s=0.0, row_s=0.01) == 8


def test_no_sub_batch_is_empty():
    """Three rows make three sub-batches at most."""
    assert sub_batches(3, most=8, fixed_s=0.0, row_s=0.01) == 3
