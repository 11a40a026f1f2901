"""Unix socket paths a server may listen on."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from inferd.rpc.unix_sockets import path_of, unavailable_reason


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:/run/a.sock", Path("/run/a.sock")),
        ("unix:///run/a.sock", Path("/run/a.sock")),
        ("unix:a.sock", Path("a.sock")),
        ("unix-abstract:a", None),
        ("127.0.0.1:8001", None),
    ],
)
def test_path_of_an_address(address: str, path: Path | None) -> None:
    """Both notations; abstract sockets have no path."""
    assert path_of(address) == path


def _listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(0)
    return made


def test_missing_or_abandoned_socket_is_free(tmp_path: Path) -> None:
    """A killed server leaves its socket without a listener."""
    path = tmp_path / "a.sock"
    assert unavailable_reason(path) is None
    _listening(path).close()
    assert unavailable_reason(path) is None


def test_socket_with_a_listener_is_taken(tmp_path: Path) -> None:
    """Also if the listener accepts nothing and its backlog is full."""
    path = tmp_path / "a.sock"
    with closing(_listening(path)):
        for _ in range(3):
            assert unavailable_reason(path) == "another server listens there"


def test_rejects_files_and_missing_directories(tmp_path: Path) -> None:
    """Only sockets may be replaced."""
    file = tmp_path / "file"
    file.write_text("x")
    assert unavailable_reason(file) == "the path exists and is not a socket"
    assert unavailable_reason(tmp_path / "none" / "a.sock") == f"there is no directory {tmp_path}/none"
    assert file.read_text() == "x"
