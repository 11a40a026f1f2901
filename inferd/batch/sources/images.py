"""Reader of folders of pictures: one source, whose rows are its files by their addresses."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import Chunk
from inferd.batch.errors import BatchError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import file_schema, stored_names
from inferd.batch.sources.finding import folder_version, is_picture
from inferd.batch.sources.pictures import COLUMNS, IMAGE, MOST_BYTES, Picture, chunks
from inferd.batch.storage import errors_of, is_remote, list_files, open_input, shown

#: Pictures that are fetched from remote storage at a time.
_FETCHED_AT_A_TIME = 16


class ImagesReader:
    """Reads pictures one after the other; those in remote storage several at a time."""

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of pictures."""
        return file_schema(file, COLUMNS)

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of pictures: any can be read."""
        return [len(_listing(file.address, file.version).sizes)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the pictures from ``start`` to before ``stop``. Whether they are any is seen later."""
        has_image = IMAGE in stored_names(file, schema, COLUMNS)
        listing = _listing(file.address, file.version)
        wanted = range(start, min(stop, len(listing.sizes)))
        pictures = listing.fetched(wanted) if is_remote(file.address) else map(listing.read, wanted)
        yield from chunks(
            file, schema, start, rows, pictures if has_image else ((listing.path(row), b"") for row in wanted)
        )


@dataclass(frozen=True, slots=True)
class _Listing:
    """The pictures of a folder, packed, as there may be millions."""

    paths: pa.Array
    sizes: NDArray[np.int64]

    def path(self, row: int) -> str:
        """Return the address of a picture."""
        return str(self.paths[row].as_py())

    def read(self, row: int) -> Picture:
        """Return a picture. Raises `BatchError` if its storage cannot be read."""
        path = self.path(row)
        if self.sizes[row] > MOST_BYTES:
            return path, None
        with open_input(path) as file, errors_of(path):
            return path, file.read()

    def fetched(self, rows: Sequence[int]) -> Iterator[Picture]:
        """Yield pictures, several of which are read at a time."""
        with ThreadPoolExecutor(_FETCHED_AT_A_TIME, thread_name_prefix="inferd-batch-fetch") as threads:
            for first in range(0, len(rows), _FETCHED_AT_A_TIME):
                yield from threads.map(self.read, rows[first : first + _FETCHED_AT_A_TIME])


@lru_cache(maxsize=8)
def _listing(address: str, version: str) -> _Listing:
    found = [each for each in list_files(address) if is_picture(each.address)]
    if folder_version(found) != version:
        raise BatchError(f"{shown(address)}: its pictures have changed while the job ran")
    return _Listing(
        pa.array([each.address for each in found], pa.large_string()),
        np.array([each.size for each in found], np.int64),
    )
