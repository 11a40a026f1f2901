"""The plan of a job, made before its first row, and the file that holds it. Pure.

The plan determines every batch: parts are cut into blocks from their first row on, and blocks into batches by
`inferd.batch.grouping`. So a part that runs again, in any process, has the same bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from inferd.batch.blocks import BatchLimits
from inferd.batch.identity import Identity

#: Part files have five digits, so that their names sort in the order of the parts.
_MOST_PARTS = 100_000

#: Increase when the same plan would run in other batches.
_SCHEMA = "inferd-batch/1"


@dataclass(frozen=True, slots=True)
class Range:
    """The rows ``start`` to ``stop`` - 1 of a file; no rows if they could not be counted."""

    file: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Part:
    """Rows whose answers are written to the output together, or not at all."""

    index: int
    ranges: tuple[Range, ...]

    @property
    def rows(self) -> int:
        """The number of rows read, including those that a filter drops."""
        return sum(each.stop - each.start for each in self.ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The parts, the ``limits`` of batches, and the rows of a block (the last block of a part may have fewer)."""

    limits: BatchLimits
    block_rows: int
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """The number of rows of all files."""
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
    """Return the plan of a manifest. Raises `KeyError`, `TypeError` or `ValueError` for another form."""
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

    ``spans`` has, for each file, the rows of each piece that can be read on its own, such as a row group; None for a
    file whose rows cannot be counted, which becomes a range without rows. Parts end at the end of a span if one is
    near; long spans are cut into equal pieces. There is at least one part, so an output without rows has its columns.
    """
    rows = sum(sum(own or ()) for own in spans)
    # At worst parts are half full: two neighbours together exceed `part_rows`.
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
    """Yield ranges of at most ``part_rows`` rows, each within one span."""
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
    """Return the spans of the rows before ``row`` of ``file``."""
    kept: list[Sequence[int] | None] = list(spans[:file])
    own = spans[file] if file < len(spans) else ()
    left, shorter = row, []
    for rows in own or ():
        shorter.append(min(rows, left))
        left -= shorter[-1]
    return [*kept, [rows for rows in shorter if rows]]


class PlanDocumentError(Exception):
    """The content is no plan. The text says why, without the name of the file."""


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """The content of the file: the plan, and the identity of its job as JSON, with its ``digest``."""

    digest: str
    identity: Mapping[str, Any]
    plan: Plan


def encode_document(identity: Identity, plan: Plan) -> bytes:
    """Return the content of the file, with a checksum."""
    content = {"schema": _SCHEMA, "hash": identity.digest, "identity": asdict(identity), "plan": plan.as_json()}
    return orjson.dumps(content | {"checksum": _checksum(content)})


def decode_document(content: bytes) -> PlanDocument:
    """Parse and verify the ``content`` of the file. Raises `PlanDocumentError`."""
    try:
        document = json.loads(content)
        if document["schema"] != _SCHEMA:
            raise PlanDocumentError(f'expected the schema "{_SCHEMA}" of this version, got "{document["schema"]}"')
        if document["checksum"] == _checksum(document):
            return PlanDocument(document["hash"], document["identity"], from_json(document["plan"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanDocumentError("it is damaged") from error
    raise PlanDocumentError("it was changed after it was written: its checksum is another")


def _checksum(document: Mapping[str, Any]) -> str:
    """Return the hash of the document without its checksum."""
    rest = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()
