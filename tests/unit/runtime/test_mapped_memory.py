"""Where the C library takes memory from, while models are loaded and at other times."""

import platform
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S

#: Prints whether a large block goes back to the operating system when it is freed: in loads, and after them.
_SCRIPT = """
import ctypes
from inferd.runtime.mapped_memory import mapped_memory
from inferd.runtime.resources import resident_bytes

SIZE = 8 * 1024 * 1024
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p

def goes_back():
    before = resident_bytes()
    block = ctypes.c_void_p(library.malloc(SIZE))
    ctypes.memset(block, 1, SIZE)
    assert resident_bytes() - before > SIZE / 2
    library.free(block)
    return resident_bytes() - before < SIZE / 2

with mapped_memory():
    print(goes_back())
    with mapped_memory():
        pass
    print(goes_back())
print(goes_back())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_goes_back_while_any_model_is_loaded():
    """And is used again otherwise; in a process without freed memory."""
    command = [sys.executable, "-c", _SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.split() == ["True", "True", "False"]
