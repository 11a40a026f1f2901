"""Addresses that are Unix sockets."""

import os
import socket
import stat
from pathlib import Path

_SCHEME = "unix:"


def path_of(address: str) -> Path | None:
    """Return the file of the Unix socket at ``address``; None for other addresses, abstract sockets too."""
    if not address.startswith(_SCHEME):
        return None
    return Path(address.removeprefix(_SCHEME).removeprefix("//"))


def why_not_free(path: Path) -> str | None:
    """Return why no server may listen at ``path``, None if it may.

    The core takes the place of whatever socket is there, also of one that another server listens on; callers would go
    to the new server without anybody noticing. What a server that was killed has left behind nobody listens on.
    """
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "there is something else than a socket"
        return "another server listens there" if _is_listened_on(path) else None
    except FileNotFoundError:
        return None
    except PermissionError as error:
        return os.strerror(error.errno or 0)


def _is_listened_on(path: Path) -> bool:
    """Whether somebody does, even without accepting. Raises FileNotFoundError and PermissionError."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # As many wait to be accepted as can.
            return True
    return True
