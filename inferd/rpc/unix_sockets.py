"""Unix socket addresses."""

import os
import socket
import stat
from pathlib import Path

_SCHEME = "unix:"


def path_of(address: str) -> Path | None:
    """Return the path of a Unix socket address; None for other addresses and abstract sockets."""
    if not address.startswith(_SCHEME):
        return None
    return Path(address.removeprefix(_SCHEME).removeprefix("//"))


def unavailable_reason(path: Path) -> str | None:
    """Return why no server may listen at ``path``, None if it may.

    The core replaces any socket, also one that another server listens on, which would silently lose its callers. The
    socket of a killed server has no listener and may be replaced.
    """
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return "the path exists and is not a socket"
        return "another server listens there" if _is_listened_on(path) else None
    except FileNotFoundError:
        return None
    except PermissionError as error:
        return os.strerror(error.errno or 0)


def _is_listened_on(path: Path) -> bool:
    """Return whether a server listens at ``path``. Raises FileNotFoundError and PermissionError."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            # The backlog of the listener is full.
            return True
    return True
