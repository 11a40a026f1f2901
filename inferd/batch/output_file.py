"""A file that a job writes: of any kind, forwards only, and its errors are those of the job."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, cast


def output_file(file: Any, errors: Callable[[], AbstractContextManager[None]]) -> BinaryIO:  # noqa: ANN401  (see below)
    """Return ``file``, one of this machine or of fsspec, with what goes wrong in it as `BatchError` by ``errors``.

    An error of anything else, such as what is read for it, so never looks like one of the output.
    """
    return cast("BinaryIO", _OutputFile(file, errors))


class _OutputFile(io.RawIOBase):
    def __init__(self, file: Any, errors: Callable[[], AbstractContextManager[None]]) -> None:  # noqa: ANN401  (above)
        self._file = file
        self._errors = errors

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, content: Any) -> int:  # noqa: ANN401  (bytes, or what has their memory)
        """Append all of ``content``."""
        with self._errors():
            self._file.write(content)
        return memoryview(content).nbytes

    def tell(self) -> int:
        """Return the bytes so far."""
        return int(self._file.tell())
