"""Replaces file mappings of this process by private copies.

ONNX Runtime maps weight files into memory and uses tensors in place if its kernels allow it. A later write to such a
file changes the model's outputs at once; truncation kills the process with SIGBUS. After `detach` neither can happen.
"""

import ctypes
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_log = logging.getLogger("inferd.runtime")

_MAPS = Path("/proc/self/maps")
_FAILED = ctypes.c_void_p(-1).value

# <sys/mman.h> of Linux, the same on every processor that ONNX Runtime has a build for.
_PROT_READ_WRITE = 0x1 | 0x2
_MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20
_MREMAP_MAYMOVE_FIXED = 0x1 | 0x2


class _Part(ctypes.Structure):
    """A ``struct iovec``."""

    _fields_ = (("address", ctypes.c_void_p), ("length", ctypes.c_size_t))


@dataclass(frozen=True, slots=True)
class _Region:
    """Consecutive mapped pages of a file."""

    address: int
    length: int


def detach(path: Path) -> int:
    """Replace all mappings of ``path`` by copies at the same addresses; return the number of bytes.

    Other threads may read the pages meanwhile, but not write them. Raises `OSError` if the file was truncated.
    """
    copied = 0
    for region in list(_mapped_from(path)):
        _replace(region)
        copied += region.length
    return copied


def _mapped_from(path: Path) -> Iterator[_Region]:
    # The name as the kernel has it, which accounts for mounts, renames and deletion.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        name = os.fsencode(Path(f"/proc/self/fd/{descriptor}").readlink()).replace(b"\n", rb"\012")
    finally:
        os.close(descriptor)
    for line in _MAPS.read_bytes().splitlines():
        bounds, *_, mapped = line.split(maxsplit=5)
        if mapped == name:
            start, end = (int(bound, 16) for bound in bounds.split(b"-"))
            yield _Region(start, end - start)


def _replace(region: _Region) -> None:
    system = _system()
    copy = system.mmap(None, region.length, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
    if copy == _FAILED:
        raise _last_error()
    try:
        _copy(system, region, copy)
        # Atomic: a reader sees either the old pages or the new ones.
        if system.mremap(copy, region.length, region.length, _MREMAP_MAYMOVE_FIXED, region.address) == _FAILED:
            raise _last_error()
    except OSError:
        system.munmap(copy, region.length)
        raise


def _copy(system: ctypes.CDLL, region: _Region, target: int) -> None:
    """Copy by system call, which returns an error at the end of a truncated file instead of SIGBUS."""
    done = 0
    while done < region.length:
        left = region.length - done
        source_part, target_part = _Part(region.address + done, left), _Part(target + done, left)
        copied = system.process_vm_readv(os.getpid(), target_part, 1, source_part, 1, 0)
        if copied <= 0:
            raise _last_error()
        done += copied


def _system() -> ctypes.CDLL:
    """Return the C library with typed functions."""
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = system.mremap.restype = ctypes.c_void_p
    system.process_vm_readv.restype = ctypes.c_ssize_t
    size, pointer, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    system.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    system.mremap.argtypes = (pointer, size, size, number, pointer)
    system.munmap.argtypes = (pointer, size)
    parts = (ctypes.POINTER(_Part), ctypes.c_ulong)
    system.process_vm_readv.argtypes = (number, *parts, *parts, ctypes.c_ulong)
    return system


def _last_error() -> OSError:
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
