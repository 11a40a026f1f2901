"""Where the C library takes memory from, while models are loaded and at other times."""

import os
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


#: Prints how many heaps the C library has when four threads have taken memory at the same time.
_THREADS = """
import ctypes, re, sys, threading
from inferd.runtime.mapped_memory import share_one_heap

library = ctypes.CDLL(None)
library.malloc.restype = library.fopen.restype = ctypes.c_void_p
share_one_heap()
together = threading.Barrier(5)

def take():
    together.wait()
    library.malloc(8192)
    together.wait()

for _ in range(4):
    threading.Thread(target=take, daemon=True).start()
together.wait()
together.wait()
file = ctypes.c_void_p(library.fopen(sys.argv[1].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
print(open(sys.argv[1]).read().count("<heap "))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
@pytest.mark.parametrize(("environment", "is_one"), [({}, True), ({"MALLOC_ARENA_MAX": "8"}, False)])
def test_all_threads_share_one_heap(environment, is_one, tmp_path):
    """Unless the environment says otherwise."""
    command = [sys.executable, "-c", _THREADS, str(tmp_path / "heaps")]
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=True, env={**inherited, **environment}
    )
    assert (int(done.stdout) == 1) is is_one
