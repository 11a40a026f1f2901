"""What has several implementations: readers, preparations, runners of models, and writers."""

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

    ``version`` differs once the content does. ``partition`` are the columns that its path gives (``year=2026/``); None
    is null.
    """

    address: str
    format: str
    size: int
    version: str
    partition: Mapping[str, str | int | None] = field(default_factory=dict)


class Reader(Protocol):
    """Reads the files of one format. Any thread; one file is read by one thread.

    All raise `inferd.batch.errors.BatchError` for storage that cannot be reached, and `UnreadableFileError` for a file
    that is no valid one.
    """

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of ``file``; those of text formats from its first rows."""
        ...

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the number of rows of each span of ``file`` that can be read without those before it."""
        ...

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows from ``start`` to before ``stop``, about ``rows`` at a time, with the columns of ``schema``.

        A row whose values are not of their type in ``schema`` is an error in its chunk, as are rows that are damaged.
        """
        ...


#: What a preparation gives for all rows of a column: the tensors of its inputs, and the rows that it cannot prepare.
Prepared = tuple[dict[str, ColumnTensor], BadRows]


class Preparation(Protocol):
    """Makes tensors of one column in a worker process. Can be pickled."""

    column: str
    #: The inputs of the model that it fills.
    inputs: tuple[str, ...]

    @property
    def identity(self) -> Mapping[str, str]:
        """What the tensors depend on beside the options: contents of files, versions of libraries."""
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
        """The batches that run at a time, at the most."""
        ...

    @property
    def busy_s(self) -> float:
        """The time that runs have taken, of all places together."""
        ...

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Begin a run and return its outputs to come; waits while as many as fit are in flight.

        The result raises `inferd.batch.errors.RowsFailedError` if the rows are to blame, and `BatchError` if nothing
        runs any more.
        """
        ...

    def close(self) -> None:
        """End what runs, and free the model."""
        ...


class ModelRunner(BatchRunner, Protocol):
    """A `BatchRunner` that also says what a plan is made of."""

    @property
    def max_rows(self) -> int:
        """The most rows that may run together; 1 if rows may not share a run."""
        ...

    @property
    def max_bytes(self) -> int:
        """The most bytes of inputs that should run together."""
        ...

    @property
    def run_costs(self) -> Mapping[int, float]:
        """The seconds that runs take, by their rows; empty if that has to be measured."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the answers depend on, of the model, as JSON."""
        ...


class TableWriter(Protocol):
    """Writes rows of one schema to a file. `close` ends the format, not the file."""

    def write(self, table: pa.RecordBatch) -> None:
        """Append the rows."""
        ...

    def close(self) -> None:
        """Write what stands at the end."""
        ...


class OpenWriter(Protocol):
    """Begins a file of one format."""

    def __call__(self, file: BinaryIO, schema: pa.Schema) -> TableWriter:
        """Return a writer into ``file``."""
        ...
