"""Sizes that are kept for the next run of the same job."""

import pytest

from inferd.batch.blocks import BatchLimits
from inferd.batch.planning import RememberedSizes, Sizes

SIZES = Sizes(BatchLimits(64, 1 << 20), 512, 4096)
FACTS = {"model": {"sha": "1"}, "options": {"where": None}}


def key(remembered, rows=(10, None)):
    return remembered.key(rows, [1024])


def test_same_job(tmp_path):
    """Has the sizes of the first time, in another process too."""
    first = RememberedSizes(tmp_path, FACTS)
    assert first.load(key(first)) is None
    first.store(key(first), SIZES)
    second = RememberedSizes(tmp_path, dict(FACTS))
    assert second.load(key(second)) == SIZES


@pytest.mark.parametrize(
    ("facts", "rows"), [({**FACTS, "options": {"where": "x > 1"}}, (10, None)), (FACTS, (11, None)), (FACTS, (10,))]
)
def test_other_jobs(tmp_path, facts, rows):
    """Are measured: other options, or files of other lengths."""
    first = RememberedSizes(tmp_path, FACTS)
    first.store(key(first), SIZES)
    other = RememberedSizes(tmp_path, facts)
    assert other.load(key(other, rows)) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sizes": [1, 2, 3]}', '{"sizes": [0, 1, 1, 1]}', '{"sizes": "a"}']
)
def test_damaged_entries(tmp_path, content):
    """Are as good as none."""
    remembered = RememberedSizes(tmp_path, FACTS)
    remembered.store(key(remembered), SIZES)
    [file] = (tmp_path / "batch").iterdir()
    file.write_text(content)
    assert remembered.load(key(remembered)) is None


def test_no_cache():
    """Keeps nothing."""
    remembered = RememberedSizes(None, FACTS)
    remembered.store(key(remembered), SIZES)
    assert remembered.load(key(remembered)) is None
