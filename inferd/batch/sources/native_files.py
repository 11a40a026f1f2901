"""Source files as pyarrow and others read them."""

import io
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from inferd.batch.storage import errors_of, is_remote, open_input


def native_file(address: str) -> pa.NativeFile:
    """Return the file at ``address`` for pyarrow, to read from anywhere in it. Raises `BatchError`."""
    with errors_of(address):
        return pa.PythonFile(_Remote(address), mode="r") if is_remote(address) else pa.OSFile(address)


def raw_file(address: str) -> BinaryIO:
    """Return the file at ``address``, which is read in large steps. Raises `BatchError`."""
    with errors_of(address):
        return cast(BinaryIO, _Remote(address) if is_remote(address) else Path(address).open("rb", buffering=0))


class _Remote(io.RawIOBase):
    """A file in remote storage, whose errors are no damage of the file, whatever their classes are."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address
        self._file: BinaryIO = open_input(address)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        with errors_of(self._address):
            return self._file.read(size)

    def close(self) -> None:
        self._file.close()
        super().close()
