"""Read Arrow IPC: files, whose spans are record batches, and streams, which are one span."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa

from inferd.batch.blocks import Chunk
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import (
    DAMAGE,
    columns_of,
    damage_text,
    file_schema,
    in_schema,
    lost_rows,
    stored_names,
)
from inferd.batch.sources.passes import BatchPass, KeptPass
from inferd.batch.storage import is_remote, native_file

_MAGIC = b"ARROW1\0\0"

#: Files with batches of at least this size are mapped: the system can drop mapped pages when memory is short.
_MAPPED_BYTES = 64 << 20


class ArrowReader:
    """Reads record batches one by one. A truncated file is read as a stream."""

    def __init__(self) -> None:
        self._kept: KeptPass[BatchPass] = KeptPass()

    def schema(self, file: SourceFile) -> pa.Schema:
        """Return the columns of ``file``."""
        return file_schema(file, _columns(file))

    def spans(self, file: SourceFile) -> Sequence[int]:
        """Return the rows of each record batch of a file, or of the whole stream.

        A damaged batch whose rows cannot be counted counts as one row.
        """
        try:
            return _counts(file.address, file.version)
        except DAMAGE as error:
            raise UnreadableFileError(damage_text(file, error)) from error

    def read(self, file: SourceFile, schema: pa.Schema, start: int, stop: int, rows: int) -> Iterator[Chunk]:
        """Yield the rows ``start`` to ``stop`` - 1."""
        columns = _columns(file)
        names = stored_names(file, schema, columns)
        opened = _opened(file.address, [columns.get_field_index(name) for name in names])
        if isinstance(opened, pa.ipc.RecordBatchStreamReader):
            key = (file.address, file.version, names)
            reading = self._kept.take(key, start) or BatchPass(iter(opened), 0)
            yield from _chunks(file, schema, reading, range(start, stop), rows)
            self._kept.keep(key, stop, reading)
            return
        first = 0
        for index, count in enumerate(self.spans(file)):
            wanted = range(max(start, first), min(stop, first + count))
            if wanted:
                reading = BatchPass(map(opened.get_batch, [index]), first)
                yield from _chunks(file, schema, reading, wanted, rows)
            first += count


def _chunks(file: SourceFile, schema: pa.Schema, reading: BatchPass, wanted: range, rows: int) -> Iterator[Chunk]:
    position = wanted.start
    try:
        for batch in reading.read(wanted.start, wanted.stop, rows):
            numbers = np.arange(position, position + batch.num_rows)
            position += batch.num_rows
            yield in_schema(file, schema, columns_of(batch), numbers)
    except DAMAGE as error:
        lost = range(position, wanted.stop)
        yield from lost_rows(file, schema, lost, f"damaged record batch: {damage_text(file, error)}")


@lru_cache(maxsize=2)
def _counts(address: str, version: str) -> list[int]:  # noqa: ARG001  (part of the key)
    opened = _opened(address, [])
    # One column suffices, and columns of numbers are the cheapest to read.
    order = sorted(range(len(opened.schema)), key=lambda index: not pa.types.is_primitive(opened.schema.types[index]))
    if isinstance(opened, pa.ipc.RecordBatchStreamReader):
        return [_stream_rows(_opened(address, order[:1]))]
    readers = [_opened(address, [index]) for index in order[:2]] or [opened]
    return [_batch_rows(readers, index) for index in range(opened.num_record_batches)]


def _stream_rows(stream: pa.ipc.RecordBatchStreamReader) -> int:
    rows = 0
    try:
        for batch in stream:
            rows += batch.num_rows
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise
        rows += 1
    return rows


def _batch_rows(readers: Sequence[pa.ipc.RecordBatchFileReader], index: int) -> int:
    for reader in readers:
        try:
            return int(reader.get_batch(index).num_rows)
        except DAMAGE as error:
            if isinstance(error, OSError) and error.errno:
                raise
    return 1


def _columns(file: SourceFile) -> pa.Schema:
    try:
        return _opened(file.address, []).schema
    except DAMAGE as error:
        raise UnreadableFileError(damage_text(file, error)) from error


def _opened(address: str, fields: Sequence[int]) -> pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader:
    """Open a reader of ``fields``, given by index; of all if empty."""
    options = pa.ipc.IpcReadOptions(included_fields=list(fields), use_threads=False)
    source = native_file(address)
    is_file = source.read(len(_MAGIC)) == _MAGIC
    if is_file:
        try:
            opened = pa.ipc.open_file(source, options=options)
        except pa.ArrowInvalid:
            # A file without a footer begins like a stream.
            source.seek(len(_MAGIC))
            return pa.ipc.open_stream(source, options=options)
        if source.size() < _MAPPED_BYTES * opened.num_record_batches or is_remote(address):
            return opened
        return pa.ipc.open_file(pa.memory_map(address), options=options)
    source.seek(0)
    return pa.ipc.open_stream(source, options=options)
