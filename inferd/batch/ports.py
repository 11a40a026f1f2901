"""Protocols with several implementations: readers, preparations, runners of models, and writers."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import pyarrow as pa

from inferd.batch.blocks import BadRows, Chunk, ColumnTensor
from inferd.runtime.signature import Array, ModelSignature, Tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file, or one folder of pictures, to read.

    ``version`` changes with the content. ``partition`` has the columns in its path, such as ``year=2026/``; None is
    null.
    """

    address: str
    format: str
    size: int
    version: str
    partition: Mapping[str, str | int | None] = field(default_factory=dict)


class Reader(Protocol):
    """Reads the files of one format. Any thread; one file is read by one thread.

    All methods raise `inferd.batch.errors.BatchError` if storage cannot be read, and `UnreadableFileError` for a file
    that is damaged or in another format.
    """

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of ``file``; text formats infer the types from the first rows."""
        ...

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the rows of each span of ``file``; a span can be read without the spans before it."""
        ...

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1 with the columns of ``schema``, about ``rows`` in each chunk.

        Damaged rows, and rows with a value of another type than in ``schema``, are errors of their chunk.
        """
        ...


#: The tensors by input for all rows of a column, and the rows that cannot be prepared.
Prepared = tuple[dict[str, ColumnTensor], BadRows]


class Preparation(Protocol):
    """Makes tensors of one column. Picklable, as it runs in worker processes."""

    column: str
    #: The inputs of the model that it makes tensors for.
    inputs: tuple[str, ...]

    @property
    def identity(self) -> Mapping[str, str]:
        """What the tensors depend on besides the options: contents of files, versions of libraries."""
        ...

    def __call__(self, column: pa.Array) -> Prepared:
        """Return the tensors of ``inputs`` for all rows; values of bad rows are unspecified."""
        ...


class BatchRunner(Protocol):
    """Runs batches, several at a time. One thread submits."""

    @property
    def signature(self) -> ModelSignature:
        """The inputs and outputs of the model."""
        ...

    @property
    def places(self) -> int:
        """The most batches that run at the same time."""
        ...

    @property
    def busy_s(self) -> float:
        """The seconds that runs took, summed over all places."""
        ...

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Start a run and return a future of its outputs by name; block while all places are taken.

        The future raises `inferd.batch.errors.RowsFailedError` if the rows may be the cause, and `BatchError` if no
        further run can succeed.
        """
        ...

    def close(self) -> None:
        """Stop all runs, and free the model."""
        ...


class ModelRunner(BatchRunner, Protocol):
    """A `BatchRunner` with the limits, costs and identity that a plan needs."""

    @property
    def max_rows(self) -> int:
        """The most rows of a batch; 1 if the model cannot be batched."""
        ...

    @property
    def max_bytes(self) -> int:
        """The most bytes of inputs that a batch should have."""
        ...

    @property
    def run_costs(self) -> Mapping[int, float]:
        """The seconds of a run by its rows; empty if they must be measured."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on of the model, as JSON."""
        ...


class TableWriter(Protocol):
    """Writes rows of one schema to a file. `close` ends the format, not the file."""

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        ...

    def close(self) -> None:
        """Write the end of the format."""
        ...


class OpenWriter(Protocol):
    """Opens a writer of one format."""

    def __call__(self, file: BinaryIO, schema: pa.Schema) -> TableWriter:
        """Return a writer into ``file``."""
        ...
