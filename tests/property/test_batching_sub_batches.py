"""Properties of splits into sub-batches."""

from hypothesis import given
from hypothesis import strategies as st

from inferd.batching.adaptive import sub_batches

_SECONDS = st.floats(0.0, 1.0)


@given(rows=st.integers(1, 10_000), most=st.integers(1, 64), fixed_s=_SECONDS, row_s=_SECONDS)
def test_sub_batches_end_sooner_and_cost_little_more(rows, most, fixed_s, row_s):
    """At most one per worker, none empty, and together they take at most half as long again."""
    found = sub_batches(rows, most=most, fixed_s=fixed_s, row_s=row_s)
    assert 1 <= found <= min(rows, most)
    if found > 1:
        assert rows / found * row_s < rows * row_s
        assert found * fixed_s + rows * row_s <= 1.5 * (fixed_s + rows * row_s) * (1 + 1e-9)
