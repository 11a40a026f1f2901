"""Read .npy files. Headers and columns of arrays are shared with `inferd.batch.sources.npz`."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import IO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import Chunk
from inferd.batch.column_types import nested_type
from inferd.batch.errors import UnreadableFileError
from inferd.batch.layouts import nested
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import file_schema, in_schema, lost_rows, stored_names
from inferd.batch.storage import raw_file
from inferd.plain_text import clipped, escaped

#: The column of a .npy file.
COLUMN = "values"

#: The most bytes of a chunk.
CHUNK_BYTES = 16 << 20

#: A header with more rows is damaged.
_MOST_ROWS = 10**12


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The header of an array, whose first dimension counts rows. The data begins at ``offset``."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]
    is_fortran: bool
    offset: int

    @property
    def row_elements(self) -> int:
        """The number of elements of a row."""
        return prod(self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return self.row_elements * self.dtype.itemsize

    @property
    def column_type(self) -> pa.DataType:
        """The type of a column of the rows."""
        return nested_type(_element_type(self.dtype), self.shape[1:])

    def column(self, rows: NDArray[np.generic]) -> pa.Array:
        """Return ``rows``, in C order, as a column."""
        values = rows.reshape(-1)
        if self.dtype.kind in "US":
            column = pa.array(values.tolist(), _element_type(self.dtype))
        else:
            column = pa.array(values.astype(self.dtype.newbyteorder("="), copy=False))
        return nested(column, self.shape[1:])


def read_header(stream: IO[bytes]) -> ArrayHeader:
    """Read the header at the beginning of ``stream``. Raises `UnreadableFileError`."""
    try:
        version = np.lib.format.read_magic(stream)
        reading = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = reading(stream)
    except ValueError as error:
        raise UnreadableFileError(f"expected an array of NumPy: {clipped(escaped(str(error)))}") from None
    return ArrayHeader(dtype, shape, bool(is_fortran) and len(shape) > 1, stream.tell())


def with_rows(header: ArrayHeader) -> ArrayHeader:
    """Return ``header`` if its array has rows that can be read, else raise `UnreadableFileError`."""
    _element_type(header.dtype)
    if not header.shape or not header.row_bytes or header.shape[0] > _MOST_ROWS:
        raise UnreadableFileError(f"expected an array of rows with elements in them, got shape {list(header.shape)}")
    return header


def chunks_of(start: int, stop: int, rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield the start and stop of each chunk of the rows: ``rows`` of them, or fewer if they are large."""
    size = max(1, min(rows, CHUNK_BYTES // max(1, row_bytes)))
    for first in range(start, stop, size):
        yield first, min(first + size, stop)


def read_up_to(stream: IO[bytes], size: int) -> bytes:
    """Read ``size`` bytes, fewer at the end of ``stream``."""
    content = stream.read(size)
    if 0 < len(content) < size:
        parts = [content]
        while len(content := stream.read(size - sum(map(len, parts)))):
            parts.append(content)
        content = b"".join(parts)
    return content


class NpyReader:
    """Reads .npy files by ranges of rows. Files are not mapped, as mapped pages would stay in memory."""

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the only column, and those of the path."""
        with raw_file(file.address) as stream:
            return file_schema(file, pa.schema([(COLUMN, with_rows(read_header(stream)).column_type)]))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of rows; any range can be read."""
        with raw_file(file.address) as stream:
            return [with_rows(read_header(stream)).shape[0]]

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1; rows missing in a truncated file are errors."""
        with raw_file(file.address) as stream:
            header = with_rows(read_header(stream))
            stored_names(file, schema, pa.schema([(COLUMN, header.column_type)]))
            for first, last in chunks_of(start, min(stop, header.shape[0]), rows, header.row_bytes):
                found = _rows(stream, header, first, last)
                if len(found):
                    columns = {COLUMN: header.column(found)}
                    yield in_schema(file, schema, columns, np.arange(first, first + len(found)))
                if len(found) < last - first:
                    text = f"the file has been cut: expected {header.shape[0]} rows, got {first + len(found)}"
                    yield from lost_rows(file, schema, range(first + len(found), stop), text)
                    return


def _rows(stream: IO[bytes], header: ArrayHeader, start: int, stop: int) -> NDArray[np.generic]:
    """Read rows; fewer if the file is truncated."""
    if not header.is_fortran:
        stream.seek(header.offset + start * header.row_bytes)
        content = read_up_to(stream, (stop - start) * header.row_bytes)
        whole = len(content) // header.row_bytes
        return np.frombuffer(content, header.dtype, whole * header.row_elements).reshape(whole, *header.shape[1:])
    # In Fortran order, each element of all rows is contiguous.
    size = header.dtype.itemsize
    elements = []
    for index in range(header.row_elements):
        stream.seek(header.offset + (index * header.shape[0] + start) * size)
        content = read_up_to(stream, (stop - start) * size)
        elements.append(np.frombuffer(content, header.dtype, len(content) // size))
    # A truncated file lacks the last elements.
    whole = len(elements[-1])
    columns = np.stack([element[:whole] for element in elements])
    return columns.reshape(*header.shape[:0:-1], whole).transpose()


def _element_type(dtype: np.dtype[np.generic]) -> pa.DataType:
    match dtype.kind:
        case "U":
            return pa.string()
        case "S":
            return pa.binary()
        case "b" | "i" | "u" | "f" | "m" | "M":
            # Fails for long floats and for times without a unit.
            with suppress(pa.ArrowException):
                return pa.from_numpy_dtype(dtype.newbyteorder("="))
    raise UnreadableFileError(f"expected an array of numbers or texts, got elements of type {dtype}")
