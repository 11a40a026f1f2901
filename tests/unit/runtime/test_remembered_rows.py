"""How many rows there was memory for, over restarts."""

import pytest

from inferd.runtime.remembered_rows import RememberedRows
from inferd.runtime.verdict_cache import CacheFolder

_GIB = 2**30
_DAY_S = 24 * 3600.0


def remembered(folder, key="k", *, usable=_GIB, now=1000.0):
    return RememberedRows(CacheFolder(folder), key, usable=lambda: usable, epoch_s=lambda: now)


def test_number_is_there_after_a_restart(tmp_path):
    """Of this model only, and the latest."""
    remembered(tmp_path).remember(16)
    remembered(tmp_path).remember(8)
    assert remembered(tmp_path, now=1000.0 + 6 * _DAY_S).rows == 8
    assert remembered(tmp_path, "other").rows is None


@pytest.mark.parametrize("now", [{"usable": 2 * _GIB}, {"now": 1000.0 + 8 * _DAY_S}])
def test_number_is_determined_again(now, tmp_path):
    """In a larger container, and after a week."""
    remembered(tmp_path).remember(8)
    assert remembered(tmp_path, **now).rows is None


@pytest.mark.parametrize("content", [[], {"rows": 0, "usable_bytes": 1, "at": 1.0}, {"rows": "8"}])
def test_unusable_file(content, tmp_path):
    """As if there were none."""
    CacheFolder(tmp_path).store("rows-k", content)
    assert remembered(tmp_path).rows is None


@pytest.mark.parametrize(("folder", "key"), [(False, "k"), (True, "")])
def test_without_a_cache(folder, key, tmp_path):
    """It holds for the process only."""
    rows = remembered(tmp_path if folder else None, key)
    rows.remember(8)
    assert rows.rows == 8
    assert list(tmp_path.iterdir()) == []
