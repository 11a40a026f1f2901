"""Write the answers of each part to its file, and note that the part is done."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from threading import Event

import pyarrow as pa

from inferd.batch.blocks import FinishedBlock
from inferd.batch.errors import BatchError, RowError
from inferd.batch.manifest import Manifest, PartNote
from inferd.batch.options import OnError
from inferd.batch.ports import OpenWriter
from inferd.batch.progress import Progress
from inferd.batch.writing import closing


class ErrorLimit:
    """Enforces --on-error. ``before`` is the number of error rows of earlier runs. Threads: one."""

    def __init__(self, on_error: OnError, before: int) -> None:
        self._on_error = on_error
        self._found = before

    def add(self, errors: Sequence[RowError]) -> None:
        """Count ``errors``. Raises `BatchError` if there are more than allowed."""
        self._found += len(errors)
        if self._on_error == "skip":
            return
        most = 0 if self._on_error == "stop" else self._on_error
        if self._found > most:
            rows = "row has" if self._found == 1 else "rows have"
            first = f", such as {_described(errors[0])}" if errors else ""
            raise BatchError(f"--on-error {self._on_error}: {self._found} {rows} no answer{first}")


def _described(error: RowError) -> str:
    where = error.source if error.row is None else f"{error.source}, row {error.row}"
    return f"{where}: {error.message} ({error.code})"


class PartFiles:
    """Writes parts of ``schema`` by ``open_writer``. ``sources`` are the names of the files, in order. Threads: one."""

    def __init__(
        self,
        manifest: Manifest,
        open_writer: OpenWriter,
        schema: pa.Schema,
        sources: Sequence[str],
        limit: ErrorLimit,
        progress: Progress,
    ) -> None:
        self._manifest = manifest
        self._open_writer = open_writer
        self._schema = schema
        self._order = {name: index for index, name in enumerate(sources)}
        self._limit = limit
        self._progress = progress

    def write_parts(self, blocks: Iterator[FinishedBlock], stop: Event) -> Iterator[int]:
        """Write the parts of ``blocks``, and yield the number of each part when it is done.

        After ``stop`` is set, the part in hand is finished, and no other is begun.
        """
        while not stop.is_set():
            first = next(blocks, None)
            if first is None:
                return
            self._write_part(first, blocks)
            self._progress.add_part()
            yield first.part

    def _write_part(self, first: FinishedBlock, others: Iterator[FinishedBlock]) -> None:
        rows, batches, errors = 0, Counter[str](), list[RowError]()
        with self._manifest.part(first.part) as file:
            with closing(self._open_writer(file, self._schema)) as writer:
                for block in _until_last(first, others):
                    self._limit.add(block.errors)
                    if block.table.num_rows:
                        writer.write(block.table)
                    errors += block.errors
                    rows += block.table.num_rows
                    batches.update(map(str, block.batches))
                    self._progress.add_block(rows=block.read_rows, errors=len(block.errors), batches=block.batches)
            nbytes = file.tell()
        errors.sort(key=lambda error: (self._order[error.source], -1 if error.row is None else error.row))
        note = PartNote(part=first.part, rows=rows, errors=len(errors), nbytes=nbytes, batches=dict(batches))
        self._manifest.note(note, errors)


def _until_last(first: FinishedBlock, others: Iterator[FinishedBlock]) -> Iterator[FinishedBlock]:
    """Yield the blocks of the part of ``first``."""
    for block in chain([first], others):
        if block.part != first.part:
            break
        yield block
        if block.is_last:
            return
    msg = f"the last block of part {first.part} is missing"
    raise RuntimeError(msg)
