"""Read and write small files safely.

A path that is no file, or too large, is an error and never blocks. What is written is there as a whole, or not at all.

A leaf: any module may import it.
"""

import errno
import os
import select
import stat
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

#: More than any file of settings, rules, tokens, keys or certificates needs.
MAX_BYTES = 4 * 1024 * 1024

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

#: Timeout of each read from a pipe, such as a shell's ``<(command)``.
_PIPE_TIMEOUT_S = 5.0


def kind_of(mode: int) -> str:
    """Return the kind of a file of ``mode``, such as ``a pipe``."""
    return _KINDS.get(stat.S_IFMT(mode), "something else")


def replace_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` in one step, so that readers never see half of it; only the owner can read it.

    Raises `OSError`, and leaves what was there before then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
        written = Path(file.name)
        try:
            file.write(text)
            file.flush()
            written.replace(path)
        except OSError:
            written.unlink(missing_ok=True)
            raise


def why_unreadable(path: Path, error: OSError) -> str:
    """Return why ``path`` cannot be read, without its name."""
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere" if path.is_symlink() else "there is no such file or directory"
    return error.strerror or str(error)


def open_file(path: Path) -> BinaryIO:
    """Open a regular file without blocking. Raises `OSError`; for other files, ``strerror`` names their kind."""
    return _as_file(*_opened(path), path)


def read_bytes(path: Path, max_bytes: int = MAX_BYTES, pipe_timeout_s: float = _PIPE_TIMEOUT_S) -> bytes:
    """Return the content of a file, or what is written into a pipe, of at most ``max_bytes``.

    Raises `OSError` as `open_file` does, for more bytes, and for a pipe without a writer.
    """
    descriptor, kind = _opened(path)
    if kind == stat.S_IFIFO:
        with os.fdopen(descriptor, "rb", buffering=0):
            content = _read_pipe(descriptor, max_bytes, pipe_timeout_s, path)
    else:
        with _as_file(descriptor, kind, path) as file:
            content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, got more", str(path))
    return content


def _opened(path: Path) -> tuple[int, int]:
    """Return a descriptor and the kind of its file."""
    try:
        # Opening a pipe would block until it has a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:
        raise OSError(errno.EINVAL, "its name contains a zero byte") from error
    return descriptor, stat.S_IFMT(os.fstat(descriptor).st_mode)


def _as_file(descriptor: int, kind: int, path: Path) -> BinaryIO:
    if kind == stat.S_IFREG:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, f"not a file but {kind_of(kind)}", str(path))


def _read_pipe(descriptor: int, max_bytes: int, timeout_s: float, path: Path) -> bytes:
    content = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) <= max_bytes:
        try:
            part = os.read(descriptor, max_bytes + 1 - len(content))
        except BlockingIOError:  # it has a writer
            if poll.poll(timeout_s * 1000):
                continue
            text = f"a pipe into which nothing was written for {timeout_s:g} s"
            raise OSError(errno.ETIMEDOUT, text, str(path)) from None
        if not part:
            break
        content += part
    if not content:
        raise OSError(errno.EPIPE, "a pipe without a writer", str(path))
    return bytes(content)


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file. Raises as `read_bytes` does, and `UnicodeDecodeError`."""
    return read_bytes(path, max_bytes).decode("utf-8")
