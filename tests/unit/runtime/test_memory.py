"""How much memory a process holds, and how much it may."""

import numpy as np
import pytest

from inferd.runtime.memory import MemoryGrowth, resident_bytes, usable_bytes

_MIB = 1024 * 1024


def test_memory_that_is_written_counts() -> None:
    """In bytes, and at once."""
    before = resident_bytes()
    held = np.ones(64 * _MIB, np.uint8)
    assert 60 * _MIB < resident_bytes() - before < 80 * _MIB
    assert held.all()


@pytest.mark.parametrize(
    ("membership", "file", "text", "expected"),
    [
        ("0::/", "memory.max", "max\n", 8 * _MIB),
        ("0::/", "memory.max", f"{4 * _MIB}\n", 4 * _MIB),
        ("0::/", "memory.max", f"{16 * _MIB}\n", 8 * _MIB),
        ("0::/service/inner", "service/memory.max", f"{2 * _MIB}\n", 2 * _MIB),
        ("7:memory:/docker", "memory/docker/memory.limit_in_bytes", f"{_MIB}\n", _MIB),
        ("0::/", "elsewhere", "1\n", 8 * _MIB),
    ],
)
def test_memory_that_may_be_used(tmp_path, membership, file, text, expected) -> None:
    """The limit of a cgroup, or of one that it lies in, where it is below the machine's memory."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(text)
    (tmp_path / "membership").write_text(membership)
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       8192 kB\n")
    assert usable_bytes(tmp_path, tmp_path / "membership", tmp_path / "meminfo") == expected


def test_this_process_has_room() -> None:
    """It does not hold all that it may."""
    assert 0 < resident_bytes() < usable_bytes()


def test_the_memory_of_larger_batches_is_foreseen():
    """In proportion to their rows, from what the largest so far took, and with a margin."""
    resident = [100]
    growth = MemoryGrowth(resident=lambda: resident[0], usable=lambda: 1000)
    assert (growth.budget, growth.expected(1000)) == (250, 0)
    growth.ran(1)
    resident[0] = 110
    growth.ran(2)
    assert (growth.expected(2), growth.expected(11), growth.expected(21)) == (10, 100, 200)
    assert growth.fits(21)
    assert not growth.fits(25)


def test_the_budget_is_no_more_than_half_of_what_is_left():
    """Serving needs some as well."""
    assert MemoryGrowth(resident=lambda: 800, usable=lambda: 1000).budget == 100
    assert MemoryGrowth(resident=lambda: 1200, usable=lambda: 1000).budget == 0
