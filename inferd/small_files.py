"""Reads files that somebody has put there: what is no file, or is far too large, is an error and holds nothing up.

A leaf: everyone may import it.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

#: More than any file of settings, rules, tokens, keys or certificates comes to.
MOST_BYTES = 4 * 1024 * 1024

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, at once. Raises `OSError`, whose ``strerror`` says what else it is."""
    try:
        # To open a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name holds a zero byte") from error
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, f"not a file but {_KINDS.get(kind, 'something else')}", str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what is in a file of at most ``most`` bytes. Raises `OSError` as `open_file`, and for a larger one."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"expected at most {most} bytes, got more", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a file in UTF-8. Raises as `read_bytes`, and `UnicodeDecodeError`."""
    return read_bytes(path, most).decode("utf-8")
