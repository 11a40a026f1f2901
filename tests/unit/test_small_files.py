"""Reading small files, and paths that are no file."""

import errno
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from inferd.small_files import open_file, read_bytes, read_text, replace_text


def test_reads_files(tmp_path: Path) -> None:
    """Up to a maximum size."""
    (tmp_path / "x").write_bytes("grün".encode())
    assert read_text(tmp_path / "x") == "grün"
    assert read_bytes(tmp_path / "x", max_bytes=5) == "grün".encode()
    with pytest.raises(OSError, match="at most 4 bytes"):
        read_bytes(tmp_path / "x", max_bytes=4)
    with open_file(tmp_path / "x") as file:
        assert file.read(2) == b"gr"


def test_other_kinds_of_files_do_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe would wait for a writer, and a device may be endless."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for path, why in {
            "pipe": "a pipe without a writer",
            "/dev/zero": "not a file but a device",
            ".": "Is a directory",
            "none": "No such file or directory",
            "socket": "No such device or address",
            "a\0b": "its name contains a zero byte",
        }.items():
            with pytest.raises(OSError) as caught:
                read_bytes(Path(path))
            assert caught.value.strerror == why
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


def test_reads_pipes() -> None:
    """Such as a shell's ``<(command)``, with the same maximum."""
    for max_bytes, fits in ((100_000, True), (99_999, False)):
        reading, writing = os.pipe()
        writer = threading.Thread(target=_write, args=(writing, b"x" * 100_000))
        writer.start()
        with os.fdopen(reading, "rb"):
            if fits:
                assert read_bytes(Path(f"/dev/fd/{reading}"), max_bytes) == b"x" * 100_000
            else:
                with pytest.raises(OSError, match="at most 99999 bytes"):
                    read_bytes(Path(f"/dev/fd/{reading}"), max_bytes)
        writer.join()


def test_pipe_with_an_idle_writer() -> None:
    """Reads have a timeout."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as file:
        file.write(b"half")
        with pytest.raises(OSError, match=r"nothing was written for 0\.01 s"):
            read_bytes(Path(f"/dev/fd/{reading}"), pipe_timeout_s=0.01)


def _write(descriptor: int, content: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(content)


def test_replaces_text_in_one_step(tmp_path, monkeypatch):
    """Only the owner can read it; what was there stays if it fails, and nothing else does."""
    path = tmp_path / "new" / "list.json"
    replace_text(path, "old")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("old", 0o600)
    replace_text(path, "é")
    assert path.read_bytes() == "é".encode()
    monkeypatch.setattr(Path, "replace", _full)
    with pytest.raises(OSError, match="full"):
        replace_text(path, "newer")
    assert [each.read_text() for each in path.parent.iterdir()] == ["é"]


def _full(*_: Path) -> None:
    raise OSError(errno.ENOSPC, "full")
