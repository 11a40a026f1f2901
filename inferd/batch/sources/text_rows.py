"""Split text files, also compressed ones, into rows, from any row on.

A `Scanner` finds the rows in steps, so a file is never in memory as a whole. Rows are not parsed here, so skipping
and counting are fast.
"""

import gzip
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.columns import DAMAGE, damage_text
from inferd.batch.sources.passes import KeptPass
from inferd.batch.storage import native_file, raw_file

#: A longer row is an error, as it must fit into memory.
LONGEST_ROW_BYTES = 64 << 20

_TOO_LONG = f"expected a row of at most {LONGEST_ROW_BYTES} bytes, with all quotes closed"

#: The distance in bytes of remembered places, from which reading can begin.
_PLACE_BYTES = 8 << 20

_NONE, _ZERO = np.empty(0, np.int64), np.zeros(1, np.int64)
_STEP_BYTES = 1 << 20
#: Small, as damage loses the rest of a step.
_ZSTD_STEP_BYTES = 64 << 10

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class RowTexts:
    """Consecutive rows from number ``first`` on: row ``i`` is ``data[starts[i]:ends[i]]``, with ``fields[i]`` fields.

    ``bad`` has the malformed ones by index.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    fields: NDArray[np.int64]
    bad: BadRows = field(default_factory=dict)
    first: int = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.starts)

    def slice(self, start: int, stop: int) -> "RowTexts":
        """Return the rows with index ``start`` to ``stop`` - 1."""
        bad = {index - start: text for index, text in self.bad.items() if start <= index < stop}
        cut = slice(start, stop)
        return RowTexts(self.data, self.starts[cut], self.ends[cut], self.fields[cut], bad, self.first + start)

    def text(self, index: int) -> bytes:
        """Return the text of a row."""
        return self.data[self.starts[index] : self.ends[index]]


NO_ROWS = RowTexts(b"", _NONE, _NONE, _NONE)


class Scanner(Protocol):
    """Finds the rows of a format. Pure."""

    def scan(self, data: bytes, *, is_end: bool) -> tuple[RowTexts, int]:
        """Return the complete rows at the beginning of ``data``, and the index of the rest.

        Empty lines are not rows. With ``is_end`` there is no rest.
        """
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """The row ``row`` begins at the byte ``offset``."""

    row: int
    offset: int


class TextRows:
    """The rows of files of one format, with remembered places. ``headers`` is the number of header rows.

    Threads: any; each file is read by one.
    """

    def __init__(self, scanner: Scanner, headers: int) -> None:
        self._scanner = scanner
        self._start = Place(-headers, 0)
        self._places: dict[tuple[str, str], list[Place]] = {}
        self._kept: KeptPass[_Pass] = KeptPass()

    def first(self, file: SourceFile, rows: int) -> list[RowTexts]:
        """Return the headers and the first ``rows`` rows of ``file``, or fewer if it ends."""
        blocks = []
        for block in self._blocks(file, self._start):
            blocks.append(block.slice(0, rows - block.first))
            if block.first + len(block) >= rows:
                break
        return blocks

    def count(self, file: SourceFile) -> int:
        """Return the number of rows. Damage ends the rows, and counts as the last one."""
        end = 0
        for block in self._blocks(file, self._start):
            end = block.first + len(block)
        return max(0, end)

    def read(self, file: SourceFile, start: int, stop: int, rows: int) -> Iterator[RowTexts]:
        """Yield the rows ``start`` to ``stop`` - 1, or to the end of the file, at most ``rows`` at a time."""
        key = (file.address, file.version)
        reading = self._kept.take(key, start)
        if reading is None:
            known = self._places.get(key, [])
            index = bisect_right(known, start, key=lambda place: place.row)
            reading = _Pass(self._blocks(file, known[index - 1] if index else self._start))
        yield from reading.read(start, stop, rows)
        self._kept.keep(key, stop, reading)

    def _blocks(self, file: SourceFile, place: Place) -> Iterator[RowTexts]:
        """Yield all rows from ``place`` on. Raises `UnreadableFileError` if nothing can be read."""
        known = self._places.setdefault((file.address, file.version), [])
        for block, end in _rows_from(texts_of(file, place.offset), self._scanner, place):
            yield block
            reached = known[-1].offset if known else 0
            if end.offset >= reached + _PLACE_BYTES and not is_compressed(file):
                known.append(end)


class _Pass:
    """One forward pass over a file. Not thread-safe."""

    def __init__(self, blocks: Iterator[RowTexts]) -> None:
        self._blocks = blocks
        self._rest = NO_ROWS

    def read(self, start: int, stop: int, rows: int) -> Iterator[RowTexts]:
        """Yield the rows ``start`` to ``stop`` - 1, at most ``rows`` at a time."""
        while True:
            block = self._rest.slice(max(0, start - self._rest.first), len(self._rest))
            taken = block.slice(0, max(0, stop - block.first)) if len(block) else block
            for first in range(0, len(taken), rows):
                yield taken.slice(first, first + rows)
            self._rest = block.slice(len(taken), len(block))
            if len(self._rest):
                return
            following = next(self._blocks, None)
            if following is None:
                return
            self._rest = following


def _rows_from(steps: Iterator[bytes], scanner: Scanner, place: Place) -> Iterator[tuple[RowTexts, Place]]:
    """Yield the rows from ``place`` on, with the place after them."""
    data, row, offset = b"", place.row, place.offset
    is_end = False
    while not is_end:
        data, is_end, damage = _longer(data, steps)
        if damage and (row, offset, data) == (place.row, place.offset, b""):
            raise UnreadableFileError(damage)
        texts, rest = scanner.scan(data, is_end=is_end and not damage)
        texts = replace(texts, first=row)
        row, offset, data = row + len(texts), offset + rest, data[rest:]
        yield texts, Place(row, offset)
        if damage:
            yield _bad_row(row, damage), Place(row + 1, offset + len(data))
        elif len(data) > LONGEST_ROW_BYTES and not is_end:
            skipped, data = _line_skipped(data, steps)
            row, offset = row + 1, offset + skipped
            yield _bad_row(row - 1, _TOO_LONG), Place(row, offset)


def _longer(data: bytes, steps: Iterator[bytes]) -> tuple[bytes, bool, str]:
    """Extend ``data`` to twice its size; return it, True at the end of the file, and the text of damage.

    Doubling keeps long rows from being scanned often.
    """
    pieces, size = [data], len(data)
    wanted = max(1, 2 * size)
    is_end, damage = False, ""
    try:
        while size < wanted and not is_end:
            step = next(steps, b"")
            pieces.append(step)
            size += len(step)
            is_end = not step
    except UnreadableFileError as error:
        is_end, damage = True, str(error)
    return b"".join(pieces), is_end, damage


def _line_skipped(data: bytes, steps: Iterator[bytes]) -> tuple[int, bytes]:
    """Return the length of the line at the beginning of ``data``, and the data after it."""
    skipped = 0
    while data:
        end = data.find(b"\n") + 1
        if end:
            return skipped + end, data[end:]
        skipped += len(data)
        data = next(steps, b"")
    return skipped, b""


def _bad_row(row: int, text: str) -> RowTexts:
    return RowTexts(b"", _ZERO, _ZERO, _ZERO, {0: text}, row)


def is_compressed(file: SourceFile) -> bool:
    """Return True for compressed files, which can only be read from the beginning."""
    return file.address.lower().endswith((".gz", ".zst"))


def texts_of(file: SourceFile, offset: int = 0) -> Iterator[bytes]:
    """Yield the decompressed bytes of ``file``, of uncompressed files from ``offset`` on; a BOM is blanked.

    Raises `UnreadableFileError` at damage, after the bytes before it, and `BatchError` for storage.
    """
    steps = _steps(file, offset)
    try:
        if offset == 0:
            first = next(steps, b"")
            if first.startswith(_UTF16):
                raise UnreadableFileError("expected text in UTF-8, got UTF-16")
            # The same number of bytes keeps the offsets of the file.
            yield first.replace(_BOM, b"\n\n\n", 1) if first.startswith(_BOM) else first
        yield from steps
    except (*DAMAGE, EOFError, zlib.error) as error:
        raise UnreadableFileError(damage_text(file, error)) from error


def _steps(file: SourceFile, offset: int) -> Iterator[bytes]:
    name = file.address.lower()
    if name.endswith(".zst"):
        with pa.CompressedInputStream(native_file(file.address), "zstd") as stream:
            yield from _until_empty(lambda: stream.read(_ZSTD_STEP_BYTES))
    elif name.endswith(".gz"):
        with raw_file(file.address) as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            # `read` would lose the bytes right before damage.
            yield from _until_empty(lambda: unpacked.read1(_STEP_BYTES))
    else:
        with raw_file(file.address) as raw:
            raw.seek(offset)
            yield from _until_empty(lambda: raw.read(_STEP_BYTES))


def _until_empty(read: Callable[[], bytes]) -> Iterator[bytes]:
    while step := read():
        yield step
