"""Replacement of file mappings by copies."""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferd.runtime import external_weights
from inferd.runtime.external_weights import detach

_PAGE = mmap.PAGESIZE


@pytest.fixture(params=["weights.bin", "with spaces and\na new line"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = tmp_path / request.param
    found.write_bytes(b"0123456789" * _PAGE)
    return found


@pytest.fixture
def mapped(path: Path) -> Iterator[mmap.mmap]:
    # As ONNX Runtime maps files: writable, but for itself alone.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        yield content


def _is_mapped(path: Path) -> bool:
    return path.name.partition("\n")[0] in Path("/proc/self/maps").read_text()


def test_copy_is_independent_of_file(path, mapped):
    """Also of its truncation, which would kill the process."""
    assert detach(path) == 10 * _PAGE
    assert not _is_mapped(path)
    path.write_bytes(b"")
    assert mapped[:] == b"0123456789" * _PAGE


def test_keeps_private_writes(path, mapped):
    """They are not in the file."""
    mapped[0:3] = b"abc"
    detach(path)
    assert mapped[0:5] == b"abc34"


def test_keeps_addresses_of_parts(path):
    """Tensors are mapped one by one."""
    with path.open("rb") as file:
        maps = [mmap.mmap(file.fileno(), _PAGE, access=mmap.ACCESS_COPY, offset=number * _PAGE) for number in (7, 2, 5)]
    assert detach(path) == 3 * _PAGE
    content = path.read_bytes()
    path.write_bytes(b"")
    for each, number in zip(maps, (7, 2, 5), strict=True):
        assert each[:] == content[number * _PAGE : (number + 1) * _PAGE]
        each.close()


def test_follows_links_and_ignores_other_files(path, mapped, tmp_path):
    """By the kernel's name of the file."""
    link = tmp_path / "link"
    link.symlink_to(path)
    (tmp_path / "other").write_bytes(b"x" * _PAGE)
    assert detach(tmp_path / "other") == 0
    assert _is_mapped(path)
    assert detach(link) == 10 * _PAGE


def test_truncated_file_is_an_error(path, mapped):
    """The system call fails instead of killing the process."""
    os.truncate(path, _PAGE)
    with pytest.raises(OSError, match="Bad address") as failed:
        detach(path)
    assert failed.value.errno == errno.EFAULT
    assert mapped[:10] == b"0123456789"


def test_out_of_memory_changes_nothing(path, mapped, monkeypatch):
    """The mapping stays in place."""
    real = external_weights._system()

    class Short:
        munmap, process_vm_readv = real.munmap, real.process_vm_readv

        @staticmethod
        def mmap(*arguments):
            return external_weights._FAILED

    monkeypatch.setattr(external_weights, "_system", Short)
    with pytest.raises(OSError, match=r"\[Errno"):
        detach(path)
    assert mapped[:10] == b"0123456789"
