"""The parts of a job and how its rows are batched, fixed before the first row. Pure.

The plan says what every batch is: blocks are cut in a part from its first row on, and batches in a block by
`inferd.batch.grouping`. So a part that is run again, by anyone, has the same bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.batch.blocks import BatchLimits

#: Of a job, so that the names of their files, with five digits, are in their order.
_MOST_PARTS = 100_000


@dataclass(frozen=True, slots=True)
class Range:
    """The rows of a file from ``start`` to before ``stop``; none for a file whose rows could not be counted."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """Rows whose answers are in the output all together, or not at all."""

    index: int
    ranges: tuple[Range, ...]

    @property
    def rows(self) -> int:
        """The number of rows of its sources, wanted or not."""
        return sum(each.stop - each.start for each in self.ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The parts; ``limits`` of the batches, and the rows of each block of a part but its last."""

    limits: BatchLimits
    block_rows: int
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """The number of rows of all sources."""
        return sum(part.rows for part in self.parts)

    def share(self, index: int, indexes: int) -> tuple[Part, ...]:
        """Return the parts of process ``index`` of ``indexes``."""
        return self.parts[index::indexes]

    def as_json(self) -> dict[str, Any]:
        """Return the plan for its manifest."""
        return {
            "batch_rows": self.limits.rows,
            "batch_bytes": self.limits.nbytes,
            "block_rows": self.block_rows,
            "parts": [[[each.file, each.start, each.stop] for each in part.ranges] for part in self.parts],
        }


def from_json(value: Mapping[str, Any]) -> Plan:
    """Return the plan of a manifest. Raises `KeyError`, `TypeError` or `ValueError` if it is none."""
    return Plan(
        limits=BatchLimits(int(value["batch_rows"]), int(value["batch_bytes"])),
        block_rows=int(value["block_rows"]),
        parts=tuple(
            Part(index, tuple(Range(int(file), int(start), int(stop)) for file, start, stop in ranges))
            for index, ranges in enumerate(value["parts"])
        ),
    )


def cut(spans: Sequence[Sequence[int] | None], part_rows: int) -> tuple[Part, ...]:
    """Cut files into parts of about ``part_rows`` rows.

    ``spans`` are, for each file, the rows of what can be read without what is before it; None for a file whose rows
    cannot be counted, which is a range without rows. Parts end at the end of a span if one is not far; long spans are
    cut into equal pieces. There is always a part, so that an output without rows has its columns too.
    """
    rows = sum(sum(own or ()) for own in spans)
    # Two parts next to each other have more rows than one may have.
    part_rows = max(part_rows, -(-2 * rows // _MOST_PARTS))
    parts: list[Part] = []
    ranges: list[Range] = []
    taken = 0
    for piece in _pieces(spans, part_rows):
        rows = piece.stop - piece.start
        if ranges and taken + rows > part_rows:
            parts.append(Part(len(parts), tuple(ranges)))
            ranges, taken = [], 0
        if ranges and ranges[-1].file == piece.file:
            ranges.append(Range(piece.file, ranges.pop().start, piece.stop))
        else:
            ranges.append(piece)
        taken += rows
    if ranges or not parts:
        parts.append(Part(len(parts), tuple(ranges)))
    return tuple(parts)


def _pieces(spans: Sequence[Sequence[int] | None], part_rows: int) -> Iterator[Range]:
    """Yield ranges of at most ``part_rows`` rows that do not cross spans."""
    for file, own in enumerate(spans):
        if own is None:
            yield Range(file, 0, 0)
            continue
        start = 0
        for rows in own:
            count = -(-rows // part_rows)
            for piece in range(count):
                first, last = start + rows * piece // count, start + rows * (piece + 1) // count
                yield Range(file, first, last)
            start += rows


def until(spans: Sequence[Sequence[int] | None], file: int, row: int) -> list[Sequence[int] | None]:
    """Return the spans without what comes after ``row`` of ``file``, which is the first that is not wanted."""
    kept: list[Sequence[int] | None] = list(spans[:file])
    own = spans[file] if file < len(spans) else ()
    left, shorter = row, []
    for rows in own or ():
        shorter.append(min(rows, left))
        left -= shorter[-1]
    return [*kept, [rows for rows in shorter if rows]]
