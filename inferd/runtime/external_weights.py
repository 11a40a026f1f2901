"""The external weight files of a model: locates them, passes them to ONNX Runtime if needed, and detaches mappings.

ONNX Runtime opens a weight file by itself if its resolved path is in the directory of the model's path or in that of
the resolved path, as in Hugging Face caches and ConfigMaps. It rejects links to elsewhere, such as those of git-annex
and DVC; the contents of these files are passed in memory.

It maps weight files into memory and uses tensors in place if its kernels allow it. A later write to such a file changes
the model's outputs at once; truncation kills the process with SIGBUS. After `detach` neither can happen. Files that
nobody changes, such as those of a cache, stay mapped: their pages are shared and need no memory of the process.
"""

import ctypes
import logging
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from inferd.runtime.errors import ModelLoadError
from inferd.runtime.runners import OrtObject
from inferd.small_files import open_file, why_unreadable


@dataclass(frozen=True, slots=True)
class ExternalWeights:
    """Weight files by their names in the model.

    ``in_memory``: ONNX Runtime rejects them, so contents are passed. ``are_immutable``: nobody changes them.
    """

    files: Mapping[str, Path] = field(default_factory=dict)
    in_memory: bool = False
    are_immutable: bool = False

    @contextmanager
    def given_to(self, options: OrtObject) -> Iterator[None]:
        """Context in which a session opened with ``options`` finds the weights. Raises `OSError`."""
        if not self.in_memory:
            yield
            return
        with ExitStack() as opened:
            contents = [opened.enter_context(_content(path)) for path in self.files.values()]
            # ONNX Runtime copies what it needs, and takes all files in this way or none.
            options.add_external_initializers_from_files_in_memory(list(self.files), contents, list(map(len, contents)))
            yield


#: A model with all weights in its own file.
NO_WEIGHTS = ExternalWeights()


def find_weights(model: Path, names: Iterable[str], *, are_immutable: bool = False) -> ExternalWeights:
    """Locate the weight files ``names`` of ``model``. Raises `ModelLoadError` for one that cannot be read."""
    files = {name: _located(model, name) for name in sorted(names)}
    allowed = [Path(os.path.realpath(model.parent)), Path(os.path.realpath(model)).parent]
    in_memory = not all(
        path == model.parent / name and any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in allowed)
        for name, path in files.items()
    )
    return ExternalWeights(files, in_memory, are_immutable)


def _located(model: Path, name: str) -> Path:
    """Return the file beside ``model``, or else beside the target of the link ``model``."""
    if not name or os.path.isabs(name) or os.path.normpath(name).startswith(os.pardir):  # noqa: PTH117  (no path yet)
        msg = f'{model.name} has its weights in "{name}", expected a file beside it or below'
        raise ModelLoadError(msg)
    beside = model.parent / name
    reason = _why_not(beside)
    behind = Path(os.path.realpath(model)).parent / name
    if reason is None or (behind != beside and not os.path.lexists(beside) and _why_not(behind) is None):
        return beside if reason is None else behind
    msg = f"{model.name} has its weights in {PurePath(name)}: {reason}"
    raise ModelLoadError(msg)


def _why_not(path: Path) -> str | None:
    """Return why ``path`` cannot be read; None if it can."""
    try:
        open_file(path).close()
    except OSError as error:
        return why_unreadable(path, error)
    return None


@contextmanager
def _content(path: Path) -> Iterator[mmap.mmap]:
    with open_file(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content


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
    # The kernel's name, which accounts for mounts, renames and deletion.
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
