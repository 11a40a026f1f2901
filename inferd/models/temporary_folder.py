"""Temporary directories that outlive no process for long: the next one deletes those of one that was killed."""

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "inferd-load-"


class TemporaryFolder:
    """A directory until `delete`, which is locked meanwhile."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def delete(self) -> None:
        """Delete the directory with its content."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def delete_leftovers() -> None:
    """Delete the directories that no process has locked: theirs has ended without deleting them."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # in use, or another user's
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)
