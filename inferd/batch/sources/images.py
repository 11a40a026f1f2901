"""Read folders of pictures: one source, whose rows are its files in the order of their addresses.

Columns and chunks of pictures are shared with `inferd.batch.sources.tar`.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import Chunk
from inferd.batch.errors import BatchError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import file_schema, in_schema, row_error, stored_names
from inferd.batch.sources.finding import folder_version, is_picture
from inferd.batch.storage import errors_of, is_remote, list_files, open_input, shown
from inferd.plain_text import escaped

#: The columns of pictures: the path, and the encoded bytes.
PATH, IMAGE = "path", "image"

COLUMNS = pa.schema([(PATH, pa.string()), (IMAGE, pa.binary())])

#: The bytes of pictures after which a chunk ends.
_CHUNK_BYTES = 16 << 20

#: Larger files are not read: they are no encoded pictures, and may not fit into memory.
MOST_BYTES = 256 << 20

#: A picture's path and bytes; None if it is too large.
Picture = tuple[str, bytes | None]

#: Pictures that are fetched from remote storage concurrently.
_FETCHED_AT_A_TIME = 16


class ImagesReader:
    """Reads pictures one after the other; from remote storage several concurrently."""

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of pictures."""
        return file_schema(file, COLUMNS)

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of pictures; any range can be read."""
        return [len(_listing(file.address, file.version).sizes)]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the pictures ``start`` to ``stop`` - 1. They are not decoded here."""
        has_image = IMAGE in stored_names(file, schema, COLUMNS)
        listing = _listing(file.address, file.version)
        wanted = range(start, min(stop, len(listing.sizes)))
        pictures = listing.fetched(wanted) if is_remote(file.address) else map(listing.read, wanted)
        yield from chunks(
            file, schema, start, rows, pictures if has_image else ((listing.path(row), b"") for row in wanted)
        )


@dataclass(frozen=True, slots=True)
class _Listing:
    """The pictures of a folder, in arrays, as there may be millions."""

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
        """Yield pictures, reading several concurrently."""
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


def chunks(file: SourceFile, schema: pa.Schema, first: int, rows: int, pictures: Iterable[Picture]) -> Iterator[Chunk]:
    """Yield ``pictures`` from row ``first`` on in chunks of ``rows``, or fewer if they are large."""
    collected: list[Picture] = []
    nbytes = 0
    for picture in pictures:
        collected.append(picture)
        nbytes += len(picture[1] or b"")
        if len(collected) == rows or nbytes >= _CHUNK_BYTES:
            yield _chunk(file, schema, first, collected)
            first += len(collected)
            collected, nbytes = [], 0
    if collected:
        yield _chunk(file, schema, first, collected)


def _chunk(file: SourceFile, schema: pa.Schema, first: int, pictures: list[Picture]) -> Chunk:
    too_large = {index: path for index, (path, image) in enumerate(pictures) if image is None}
    errors = [
        row_error(file, first + index, f"expected a picture of at most {MOST_BYTES >> 20} MiB, got {escaped(path)}")
        for index, path in too_large.items()
    ]
    kept = [index for index in range(len(pictures)) if index not in too_large]
    columns = {
        PATH: pa.array([pictures[index][0] for index in kept], pa.string()),
        IMAGE: pa.array([pictures[index][1] for index in kept], pa.binary()),
    }
    return in_schema(file, schema, columns, first + np.array(kept, np.int64), errors=errors)
