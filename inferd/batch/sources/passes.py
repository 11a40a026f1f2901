"""Passes over files that are kept between consecutive parts, so that reading continues where it stopped."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import pyarrow as pa

P = TypeVar("P")


class KeptPass(Generic[P]):
    """Keeps the latest unfinished pass. Threads: any; one of them takes it."""

    def __init__(self) -> None:
        self._kept: deque[tuple[object, int, P]] = deque(maxlen=1)

    def keep(self, key: object, position: int, reading: P) -> None:
        """Keep ``reading`` of ``key``, which is at row ``position``, in place of another."""
        self._kept.append((key, position, reading))

    def take(self, key: object, position: int) -> P | None:
        """Take out the pass of ``key`` if it is not beyond row ``position``; else return None."""
        try:
            kept_key, kept_position, reading = self._kept.pop()
        except IndexError:
            return None
        return reading if kept_key == key and kept_position <= position else None


class BatchPass:
    """One pass over ``batches``, whose first row is ``position``. Not thread-safe."""

    def __init__(self, batches: Iterator[pa.RecordBatch], position: int) -> None:
        self._batches = batches
        self._position = position
        self._rest: pa.RecordBatch | None = None

    def read(self, start: int, stop: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows ``start`` to ``stop`` - 1, at most ``rows`` at a time.

        Raises an error of pyarrow if they are damaged, or end early.
        """
        while self._position < stop:
            batch = self._rest if self._rest is not None else self._next()
            skipped = min(max(start - self._position, 0), batch.num_rows)
            taken = batch.slice(skipped, min(rows, stop - self._position - skipped))
            self._position += skipped + taken.num_rows
            left = batch.slice(skipped + taken.num_rows)
            self._rest = left if left.num_rows else None
            if taken.num_rows:
                yield taken

    def _next(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            msg = "there are fewer rows than expected"
            raise pa.ArrowInvalid(msg) from None
