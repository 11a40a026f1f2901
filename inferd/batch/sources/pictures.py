"""Columns of encoded pictures, which readers of folders and archives share."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import Chunk
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import in_schema, row_error
from inferd.plain_text import escaped

#: The columns of pictures: where each comes from, and its bytes.
PATH, IMAGE = "path", "image"

COLUMNS = pa.schema([(PATH, pa.string()), (IMAGE, pa.binary())])

#: The bytes of pictures after which a chunk ends.
_CHUNK_BYTES = 16 << 20

#: What is larger is not read: it is no encoded picture, and may not fit memory.
MOST_BYTES = 256 << 20

#: A picture's path and bytes, which are None if they are too many.
Picture = tuple[str, bytes | None]


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
