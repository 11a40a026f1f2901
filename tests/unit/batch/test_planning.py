"""Sizes of parts, blocks and batches, from what rows take."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.batch.blocks import BatchLimits
from inferd.batch.planning import RowCosts, block_rows_of, part_rows_of

MIB = 2**20

_costs = st.builds(
    RowCosts,
    input_bytes=st.floats(1, 2**31),
    output_bytes=st.floats(0, 2**31),
    seconds=st.floats(0, 1000),
)


@given(rows=st.integers(1, 5000), costs=st.none() | _costs)
def test_blocks_are_whole_batches_and_parts_whole_blocks(rows: int, costs: RowCosts | None) -> None:
    """A block has at least one batch and a part at least one block, and neither ends with a smaller one."""
    block_rows = block_rows_of(BatchLimits(rows, 2**62), costs, None)
    assert block_rows >= rows
    assert block_rows % rows == 0
    part_rows = part_rows_of(block_rows, costs)
    assert part_rows >= block_rows
    assert part_rows % block_rows == 0


def test_large_rows_make_small_blocks_and_parts() -> None:
    """Pictures of half a MiB: 64 in a block, 512 in a part."""
    costs = RowCosts(input_bytes=MIB / 2, output_bytes=4, seconds=1e-6)
    assert block_rows_of(BatchLimits(16, 2**62), costs, None) == 64
    assert part_rows_of(64, costs) == 512


def test_large_outputs_count_as_inputs_do() -> None:
    """A block is no larger if its rows become large only by running."""
    costs = RowCosts(input_bytes=4, output_bytes=MIB / 2, seconds=1e-6)
    assert block_rows_of(BatchLimits(16, 2**62), costs, None) == 64
    assert part_rows_of(64, costs) == 128


def test_rows_that_are_alike_make_smaller_blocks() -> None:
    """They need no others of their shape, so the model has the first of them sooner."""
    costs = RowCosts(input_bytes=MIB / 256, output_bytes=4, seconds=1e-6)
    assert block_rows_of(BatchLimits(256, 2**62), costs, None, are_alike=True) == 2048
    assert block_rows_of(BatchLimits(256, 2**62), costs, None) == 8192


def test_slow_rows_make_small_blocks_and_parts() -> None:
    """Of rows that take 0.1 s, what takes 10 s or a minute, as the next smaller power of two."""
    costs = RowCosts(input_bytes=4, output_bytes=4, seconds=0.1)
    assert block_rows_of(BatchLimits(8, 2**62), costs, None) == 64
    assert part_rows_of(64, costs) == 512


def test_small_rows_have_an_upper_bound() -> None:
    """Rows that take nothing still make blocks and parts of a bounded number of rows."""
    costs = RowCosts(input_bytes=1, output_bytes=1, seconds=0)
    assert block_rows_of(BatchLimits(1000, 2**62), costs, None) == 8000
    assert part_rows_of(8000, costs) == 96_000


def test_look_ahead_is_taken_as_it_is() -> None:
    """A block of a given look-ahead may hold less than a batch."""
    assert block_rows_of(BatchLimits(64, 2**62), None, 10) == 10
