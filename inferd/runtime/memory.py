"""How much memory a model takes.

ONNX Runtime keeps statistics of its allocators and does not tell them in Python. Models are loaded one after another
and before they are called, so what the process grows by meanwhile is the model's: weights, the plan of its graph, and
with warm-up the buffers of a run.
"""

import os
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return how much memory this process holds now."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
