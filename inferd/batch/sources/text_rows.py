"""The rows of text files: where each begins and ends, from any row on.

A file is cut into rows by a `Scanner`, step by step, and is never in memory as a whole. What the rows say is not looked
at here, so rows are skipped and counted fast.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.batch.blocks import BadRows
from inferd.batch.errors import UnreadableFileError
from inferd.batch.ports import SourceFile
from inferd.batch.sources.passes import KeptPass
from inferd.batch.sources.text_files import is_compressed, texts_of

#: A longer row is an error: it would have to be in memory.
LONGEST_ROW_BYTES = 64 << 20

_TOO_LONG = f"expected a row of at most {LONGEST_ROW_BYTES} bytes, with all quotes closed"

#: How far the places are apart that reading can begin at.
_PLACE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RowTexts:
    """Rows next to each other: those from ``first`` on, ``data[starts[i]:ends[i]]`` each, of ``fields[i]`` fields.

    ``bad`` are malformed.
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
        """Return the rows from index ``start`` to before ``stop``."""
        bad = {index - start: text for index, text in self.bad.items() if start <= index < stop}
        cut = slice(start, stop)
        return RowTexts(self.data, self.starts[cut], self.ends[cut], self.fields[cut], bad, self.first + start)

    def text(self, index: int) -> bytes:
        """Return the text of a row."""
        return self.data[self.starts[index] : self.ends[index]]


_NONE, _ZERO = np.empty(0, np.int64), np.zeros(1, np.int64)
NO_ROWS = RowTexts(b"", _NONE, _NONE, _NONE)


class Scanner(Protocol):
    """Finds rows. Pure."""

    def scan(self, data: bytes, *, is_end: bool) -> tuple[RowTexts, int]:
        """Return the whole rows at the beginning of ``data``, and where the rest begins.

        Lines without anything are no rows. With ``is_end`` there is no rest.
        """
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """The row ``row`` begins at the byte ``offset``."""

    row: int
    offset: int


class TextRows:
    """The rows of files of one format; remembers places in them. ``headers`` is the number of rows before the first.

    Any thread; one file is read by one thread.
    """

    def __init__(self, scanner: Scanner, headers: int) -> None:
        self._scanner = scanner
        self._start = Place(-headers, 0)
        self._places: dict[tuple[str, str], list[Place]] = {}
        self._kept: KeptPass[_Pass] = KeptPass()

    def first(self, file: SourceFile, rows: int) -> list[RowTexts]:
        """Return the first ``rows`` rows of ``file`` and the headers before them, or what there is of them."""
        blocks = []
        for block in self._blocks(file, self._start):
            blocks.append(block.slice(0, rows - block.first))
            if block.first + len(block) >= rows:
                break
        return blocks

    def count(self, file: SourceFile) -> int:
        """Return the number of rows. A place where ``file`` is damaged counts as one, its last."""
        end = 0
        for block in self._blocks(file, self._start):
            end = block.first + len(block)
        return max(0, end)

    def read(self, file: SourceFile, start: int, stop: int, rows: int) -> Iterator[RowTexts]:
        """Yield the rows from ``start`` to before ``stop``, or to the end if it comes before, at most ``rows`` each."""
        key = (file.address, file.version)
        reading = self._kept.taken(key, start)
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
    """One reading of a file, forwards. Not thread-safe."""

    def __init__(self, blocks: Iterator[RowTexts]) -> None:
        self._blocks = blocks
        self._rest = NO_ROWS

    def read(self, start: int, stop: int, rows: int) -> Iterator[RowTexts]:
        """Yield the rows from ``start`` to before ``stop``, at most ``rows`` at a time."""
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
    """Yield the rows of the bytes from ``place`` on, with the place after them."""
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
    """Return at least twice as much as ``data``, whether that is the end, and what is damaged there.

    Twice, so that long rows are not scanned often.
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
    """Return the length of the line that ``data`` begins with, and what comes after it."""
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
