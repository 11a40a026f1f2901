"""Files as they should not be."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from inferd.small_files import open_file, read_bytes, read_text


def test_a_file_is_read(tmp_path: Path) -> None:
    """Up to the most that is taken."""
    (tmp_path / "x").write_bytes("grün".encode())
    assert read_text(tmp_path / "x") == "grün"
    assert read_bytes(tmp_path / "x", most=5) == "grün".encode()
    with pytest.raises(OSError, match="at most 4 bytes"):
        read_bytes(tmp_path / "x", most=4)
    with open_file(tmp_path / "x") as file:
        assert file.read(2) == b"gr"


def test_what_is_no_file_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a pipe without a writer would wait for one, and a device may have no end."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        before = len(list(Path("/proc/self/fd").iterdir()))
        for path, why in {
            "pipe": "a pipe that nobody writes to",
            "/dev/zero": "not a file but a device",
            ".": "Is a directory",
            "none": "No such file or directory",
            "socket": "No such device or address",
            "a\0b": "its name holds a zero byte",
        }.items():
            with pytest.raises(OSError) as caught:
                read_bytes(Path(path))
            assert caught.value.strerror == why
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1


def test_what_is_written_into_a_pipe_is_read() -> None:
    """A shell's ``<(command)`` is one; the bounds are those of a file."""
    for most, whole in ((100_000, True), (99_999, False)):
        reading, writing = os.pipe()
        writer = threading.Thread(target=_write, args=(writing, b"x" * 100_000))
        writer.start()
        with os.fdopen(reading, "rb"):
            if whole:
                assert read_bytes(Path(f"/dev/fd/{reading}"), most) == b"x" * 100_000
            else:
                with pytest.raises(OSError, match="at most 99999 bytes"):
                    read_bytes(Path(f"/dev/fd/{reading}"), most)
        writer.join()


def test_a_pipe_whose_writer_says_nothing_is_given_up() -> None:
    """Nothing waits for ever for a file."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0) as file:
        file.write(b"half")
        with pytest.raises(OSError, match=r"nothing was written for 0\.01 s"):
            read_bytes(Path(f"/dev/fd/{reading}"), pipe_patience_s=0.01)


def _write(descriptor: int, content: bytes) -> None:
    with suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(content)
