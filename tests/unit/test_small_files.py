"""Files as they should not be."""

import os
import socket
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
            "pipe": "not a file but a pipe",
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
