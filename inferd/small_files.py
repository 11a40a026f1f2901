"""Reads files that somebody has put there: what is no file, or is far too large, is an error and holds nothing up.

A leaf: everyone may import it.
"""

import errno
import os
import select
import stat
from pathlib import Path
from typing import BinaryIO

#: More than any file of settings, rules, tokens, keys or certificates comes to.
MOST_BYTES = 4 * 1024 * 1024

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


#: How long the next part of what is written into a pipe may take: a shell's ``<(command)`` is one.
_PIPE_PATIENCE_S = 5.0


def kind_of(mode: int) -> str:
    """Say what a file of ``mode`` is, such as ``a pipe``."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def why_unreadable(path: Path, error: OSError) -> str:
    """Say why ``path`` cannot be read, without naming it."""
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere" if path.is_symlink() else "there is no such file or directory"
    return error.strerror or str(error)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, at once. Raises `OSError`, whose ``strerror`` says what else it is."""
    return _as_file(*_opened(path), path)


def read_bytes(path: Path, most: int = MOST_BYTES, pipe_patience_s: float = _PIPE_PATIENCE_S) -> bytes:
    """Return what is in a file of at most ``most`` bytes, or what is written into a pipe.

    Raises `OSError` as `open_file`, for a larger one, and for a pipe that nobody writes to.
    """
    descriptor, kind = _opened(path)
    if kind == stat.S_IFIFO:
        with os.fdopen(descriptor, "rb", buffering=0):
            content = _read_pipe(descriptor, most, pipe_patience_s, path)
    else:
        with _as_file(descriptor, kind, path) as file:
            content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"expected at most {most} bytes, got more", str(path))
    return content


def _opened(path: Path) -> tuple[int, int]:
    """Return a descriptor, and what kind of file it is of."""
    try:
        # To open a pipe would wait for somebody to write into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name holds a zero byte") from error
    return descriptor, stat.S_IFMT(os.fstat(descriptor).st_mode)


def _as_file(descriptor: int, kind: int, path: Path) -> BinaryIO:
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, f"not a file but {kind_of(kind)}", str(path))


def _read_pipe(descriptor: int, most: int, patience_s: float, path: Path) -> bytes:
    content = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) <= most:
        try:
            part = os.read(descriptor, most + 1 - len(content))
        except BlockingIOError:  # somebody has it open for writing
            if poll.poll(patience_s * 1000):
                continue
            text = f"a pipe into which nothing was written for {patience_s:g} s"
            raise OSError(errno.ETIMEDOUT, text, str(path)) from None
        if not part:
            break
        content += part
    if not content:
        raise OSError(errno.EPIPE, "a pipe that nobody writes to", str(path))
    return bytes(content)


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text of a file in UTF-8. Raises as `read_bytes`, and `UnicodeDecodeError`."""
    return read_bytes(path, most).decode("utf-8")
