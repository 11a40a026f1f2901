"""How much memory a process holds."""

import numpy as np

from inferd.runtime.memory import resident_bytes

_MIB = 1024 * 1024


def test_memory_that_is_written_counts() -> None:
    """In bytes, and at once."""
    before = resident_bytes()
    held = np.ones(64 * _MIB, np.uint8)
    assert 60 * _MIB < resident_bytes() - before < 80 * _MIB
    assert held.all()
