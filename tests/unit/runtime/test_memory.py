"""How much memory a process holds, and how much it may."""

import numpy as np
import pytest

from inferd.runtime.memory import resident_bytes, usable_bytes

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
