"""Where a server may listen in the file system."""

import socket
from contextlib import closing
from pathlib import Path

import pytest

from inferd.rpc.unix_sockets import path_of, why_not_free


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
def test_which_file_an_address_is(address: str, path: Path | None) -> None:
    """Both ways to write it; abstract sockets have none."""
    assert path_of(address) == path


def _listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(0)
    return made


def test_nothing_or_what_was_left_behind_is_free(tmp_path: Path) -> None:
    """A server that was killed leaves its socket, on which nobody listens."""
    path = tmp_path / "a.sock"
    assert why_not_free(path) is None
    _listening(path).close()
    assert why_not_free(path) is None


def test_a_socket_that_is_listened_on_is_taken(tmp_path: Path) -> None:
    """Also by somebody who does not come to accept, so that from the second time on there is no room to connect."""
    path = tmp_path / "a.sock"
    with closing(_listening(path)):
        for _ in range(3):
            assert why_not_free(path) == "another server listens there"


def test_files_and_places_that_are_none(tmp_path: Path) -> None:
    """Nothing is taken away that is no socket."""
    file = tmp_path / "file"
    file.write_text("x")
    assert why_not_free(file) == "the path exists and is not a socket"
    assert why_not_free(tmp_path / "none" / "a.sock") == f"there is no directory {tmp_path}/none"
    assert file.read_text() == "x"
