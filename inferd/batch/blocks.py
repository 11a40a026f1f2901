"""What goes through a job: blocks of rows, as they are read, prepared and finished."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.errors import RowError
from inferd.runtime.signature import Array

#: Some rows of a block: consecutive ones, or these.
Selection = slice | NDArray[np.int64]

#: Rows of a block that cannot be used, by their index in it, with what was expected and what came.
BadRows = dict[int, str]


class ColumnTensor(Protocol):
    """The values of one input for all rows of a block. See `inferd.batch.tensors`."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def shapes(self) -> NDArray[np.int64] | None:
        """The shape of each row, ``[rows, rank]``; None if all rows have the same."""
        ...

    @property
    def nbytes(self) -> int:
        """The memory of all rows."""
        ...

    def rows(self, selection: Selection) -> Array:
        """Return rows of one shape as one array ``[n, *shape]``, a view if they are consecutive and all alike."""
        ...

    def select(self, kept: NDArray[np.bool_]) -> "ColumnTensor":
        """Return the rows where ``kept`` is true."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Where rows come from: for each, the index of its file in the plan, and its number in it from 0."""

    files: NDArray[np.int64]
    rows: NDArray[np.int64]

    def select(self, kept: NDArray[np.bool_]) -> "Origin":
        """Return those of the rows where ``kept`` is true."""
        return Origin(self.files[kept], self.rows[kept])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one file as its reader yields them, in order.

    ``table`` has one row for each of ``rows``, their numbers in the file. ``errors`` are rows that cannot be read;
    their numbers are between those of this chunk and of its neighbours.
    """

    rows: NDArray[np.int64]
    table: pa.RecordBatch
    errors: list[RowError] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Wanted rows of one part, next to each other; blocks and their batches never cross a part.

    ``table`` has the columns that are read, one row for each of ``origin``. ``errors`` are rows that were lost on the
    way here. ``is_last`` of its part. ``read_rows`` are the rows of the sources that it stands for, unwanted ones
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
    """A block as the model takes it: ``tensors`` by input, of the rows of ``origin``; ``joined`` are kept columns."""

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
    """The most that runs together: rows, and bytes of their inputs, but always one row."""

    rows: int
    nbytes: int
