"""Adds bearer tokens to the file that the server reads them from."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from inferd.security.bearer_tokens import StoredToken, TokenTable
from inferd.security.files import BadFileError
from inferd.security.yaml_file import parse_yaml, read_text


def entry_of(token: StoredToken) -> str:
    """Return the lines of the file for ``token``."""
    lines = [f'- name: "{token.name}"', f'  sha256: "{token.sha256}"']
    if token.expires is not None:
        lines.append(f"  expires: {_text(token.expires)}")
    return "\n".join(lines) + "\n"


def append_token(path: Path, token: StoredToken) -> None:
    """Add ``token`` to the file at ``path``, which is made if there is none, with its comments kept.

    Readers see the old file or the new one, never a part. One that is made is readable by its owner only; one that was
    there before keeps its owner and mode, as the server may be somebody else. Who adds at the same time waits. Raises
    `BadFileError`, or `OSError` if it cannot be written.
    """
    path = path.resolve()
    with _alone_in(path.parent):
        text = _appended(read_text(path) if path.exists() else "", token, path)
        _replace(path, text)


def _appended(text: str, token: StoredToken, path: Path) -> str:
    if not parse_yaml(text, path):
        # Nothing, or a list written as []: only comments are kept.
        text = "".join(f"{line}\n" for line in text.splitlines() if line.lstrip().startswith("#"))
    elif not text.endswith("\n"):
        text += "\n"
    try:
        TokenTable.parse(text + entry_of(token), path)
    except BadFileError as error:
        raise BadFileError(f"nothing was added: {error}") from None
    return text + entry_of(token)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    # Made with mode 0600; a name of its own, so that what others put there is not written to.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                before = path.stat()
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
