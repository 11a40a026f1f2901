"""The data between the stages of a job: blocks of rows as they are read, prepared and finished."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.errors import RowError
from inferd.runtime.signature import Array

#: Rows of a block: a range, or indices.
Selection = slice | NDArray[np.int64]

#: Invalid rows by their index in a block; the text has the expected and the actual value.
BadRows = dict[int, str]


class ColumnTensor(Protocol):
    """The values of one input for all rows of a block. See `inferd.batch.tensors`."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64] | None:
        """The shape of each row, INT64 ``[rows, rank]``; None if all rows have one shape."""
        ...

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        ...

    def rows(self, selection: Selection) -> Array:
        """Return rows of one shape as one array ``[n, *shape]``; a view for a range of rows."""
        ...

    def select(self, kept: NDArray[np.bool_]) -> "ColumnTensor":
        """Return the rows where ``kept`` is true."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of rows: for each, the index of its file in the plan, and its number in the file from 0."""

    files: NDArray[np.int64]
    rows: NDArray[np.int64]

    def select(self, kept: NDArray[np.bool_]) -> "Origin":
        """Return the rows where ``kept`` is true."""
        return Origin(self.files[kept], self.rows[kept])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file as its reader yields them, in order.

    ``table`` has one row for each number in ``rows``, counted in the file from 0. ``errors`` are rows that cannot be
    read; their numbers lie between those of this chunk and its neighbours.
    """

    rows: NDArray[np.int64]
    table: pa.RecordBatch
    errors: list[RowError] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive filtered rows of one part; blocks and batches never cross a part.

    ``table`` has the columns that are read, one row for each of ``origin``. ``errors`` are rows without an answer up
    to here. ``is_last``: the last block of its part. ``read_rows`` counts the rows that were read for it, dropped ones
    included.
    """

    part: int
    is_last: bool
    origin: Origin
    table: pa.RecordBatch
    errors: list[RowError]
    read_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedBlock:
    """A block as tensors by input, for the rows of ``origin``; ``joined`` has the columns for the output."""

    part: int
    is_last: bool
    origin: Origin
    joined: pa.RecordBatch
    tensors: Mapping[str, ColumnTensor]
    errors: list[RowError]
    read_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedBlock:
    """The answers to a block: ``table`` in the schema of the output, in the order of the source.

    ``batches`` are the rows of each batch that ran.
    """

    part: int
    is_last: bool
    table: pa.RecordBatch
    errors: list[RowError]
    read_rows: int
    batches: list[int]


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most rows of a batch, and the most bytes of its inputs; one row is always allowed."""

    rows: int
    nbytes: int
