"""Memory for models that goes back to the operating system when they are unloaded.

The C library takes large blocks from the operating system one by one, and gives them back when they are freed. But what
is large grows with the blocks that are freed, so that buffers of requests are used again without page faults. Weights
would be in its heaps then, of which each keeps up to 64 MiB: 50 switches of a model of 27 MB added 170 MB.

Only the first heap gives back its free end when asked to. Threads have others, up to eight for each core, where they
leave what requests and small runs needed: 40 loads and unloads with runs added 49 MB. So there is one heap only.
"""

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Parameters of mallopt, of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8

#: The same as the last one, in the environment.
_ARENA_MAX_VARIABLE = "MALLOC_ARENA_MAX"

#: While a model is loaded, blocks of this size are mapped one by one.
_LOADING_BYTES = 1024 * 1024

#: At other times, about what the thresholds grow to. Once one is set, they do not grow any more.
_MAPPED_BYTES = 16 * 1024 * 1024
_TRIM_BYTES = 64 * 1024 * 1024

_lock = threading.Lock()
_loads = 0


@contextmanager
def mapped_memory() -> Iterator[None]:
    """Let large blocks that are allocated meanwhile, by any thread, go back when they are freed."""
    global _loads  # noqa: PLW0603  (the C library has one setting for the process)
    with _lock:
        _loads += 1
        _set(_LOADING_BYTES)
    try:
        yield
    finally:
        with _lock:
            _loads -= 1
            if not _loads:
                _set(_MAPPED_BYTES)


def share_one_heap() -> None:
    """Let all threads allocate from one heap, unless the environment says how many there are.

    To be called before other threads are started.
    """
    if _ARENA_MAX_VARIABLE not in os.environ:
        _mallopt({_ARENA_MAX: 1})


def _set(mapped_bytes: int) -> None:
    _mallopt({_MMAP_THRESHOLD: mapped_bytes, _TRIM_THRESHOLD: _TRIM_BYTES})


def _mallopt(values: Mapping[int, int]) -> None:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # a C library other than glibc
        return
    for parameter, value in values.items():
        mallopt(parameter, value)
