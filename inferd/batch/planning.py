"""Make the plan of a job: count its rows, run some of them, and fix the sizes of parts, blocks and batches."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from inferd.batch.binding import Binding
from inferd.batch.blocks import BatchLimits, PreparedBlock
from inferd.batch.options import JobOptions
from inferd.batch.plan import Part, Plan, Range, cut, until
from inferd.batch.ports import ModelRunner
from inferd.batch.preparation.blocks import BlockPreparation
from inferd.batch.progress import Phase
from inferd.batch.reading import Sources, counts
from inferd.batch.running import BlockRunner
from inferd.batch.selection import first_unwanted
from inferd.batch.sizing import choose_limits
from inferd.runtime.resources import usable_cores
from inferd.runtime.verdict_cache import CacheFolder, cache_key

#: Increase when sizes are chosen in another way.
_SIZES_VERSION = 2
#: The limits of a part, which runs again as a whole after a failure.
_PART_ROWS, _PART_INPUT_BYTES, _PART_OUTPUT_BYTES, _PART_S = 100_000, 256 << 20, 64 << 20, 60.0
#: The limits of a block; each stage has one or two in memory.
_BLOCK_ROWS, _BLOCK_BYTES, _BLOCK_S = 8192, 32 << 20, 10.0
#: The limit if all rows have one shape: any rows form a batch then, and with smaller blocks the first batch starts
#: sooner and the last write is shorter.
_ALIKE_BYTES = 8 << 20
#: Rows that are measured: first a few, then those of the largest batch, up to this number and time.
_FEW_ROWS, _SAMPLE_ROWS, _SAMPLE_S = 16, 1024, 2.0
#: Nothing is measured if a filter drops all of the first rows, this many.
_SEARCHED_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class Sizes:
    """The limits of batches, and the rows of blocks and of parts."""

    limits: BatchLimits
    block_rows: int
    part_rows: int


@dataclass(frozen=True, slots=True)
class RowCosts:
    """The costs of one row: bytes of its inputs, as read or as tensors, whichever is more; of its outputs; and time."""

    input_bytes: float
    output_bytes: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Sample:
    """The first rows of the job. ``row_bytes`` is a row's size as read or as tensors, whichever is more."""

    block: PreparedBlock
    row_bytes: float


class RememberedSizes:
    """Measured sizes in the cache at ``folder``, by job; without a folder nothing is kept.

    The same job elsewhere so has the same parts and batches, and with the batches the same last bits of answers. The
    key is made of ``facts``, which have neither names nor times of files: a copy of the same rows is the same job.
    """

    def __init__(self, folder: Path | None, facts: Mapping[str, object]) -> None:
        self._entries = CacheFolder(None if folder is None else folder / "batch")
        self._facts = facts

    def key(self, rows: Sequence[int | None], bounds: Sequence[int]) -> str:
        """Return the key of a job by the ``rows`` of each file and the ``bounds`` of its model's batches."""
        facts = {"sizes": _SIZES_VERSION, "rows": rows, "bounds": bounds, "cores": usable_cores(), **self._facts}
        return cache_key((), facts)

    def load(self, key: str) -> Sizes | None:
        """Return the sizes under ``key``; None if there are none."""
        content = self._entries.load(key)
        if not isinstance(content, dict):
            return None
        try:
            rows, nbytes, block_rows, part_rows = map(int, content["sizes"])
        except (KeyError, TypeError, ValueError):
            return None
        if min(rows, nbytes, block_rows, part_rows) < 1:
            return None
        return Sizes(BatchLimits(rows, nbytes), block_rows, part_rows)

    def store(self, key: str, sizes: Sizes) -> None:
        """Keep ``sizes`` under ``key``."""
        limits = sizes.limits
        self._entries.store(key, {"sizes": [limits.rows, limits.nbytes, sizes.block_rows, sizes.part_rows]})


@dataclass(frozen=True, kw_only=True)
class Planner:
    """Makes the plan of a job. ``enter`` begins a phase of the progress."""

    options: JobOptions
    sources: Sources
    runner: ModelRunner
    binding: Binding
    preparation: BlockPreparation
    enter: Callable[[Phase], None]
    remembered: RememberedSizes

    def plan(self, *, may_measure: bool = True) -> Plan:
        """Return the plan. Counts all rows; runs the first ones to measure them if it ``may_measure``."""
        self.enter("counting")
        spans = self._wanted(self.sources.spans())
        key = self.remembered.key(counts(spans), [self.runner.max_rows, self.runner.max_bytes])
        sizes = self.remembered.load(key)
        if sizes is None:
            self.enter("measuring")
            sizes = self._sizes(cut(spans, self.options.part_rows or _PART_ROWS) if may_measure else ())
            if may_measure:
                self.remembered.store(key, sizes)
        return Plan(limits=sizes.limits, block_rows=sizes.block_rows, parts=cut(spans, sizes.part_rows))

    def _sizes(self, parts: Sequence[Part]) -> Sizes:
        sample = self._sample(parts)
        tensors = {} if sample is None else sample.block.tensors
        limits = choose_limits(self.runner, tensors, tuple(self.binding.outputs), self.options)
        costs = None if sample is None else self._costs(sample, limits)
        are_alike = all(tensor.shapes is None for tensor in tensors.values())
        block_rows = block_rows_of(limits, costs, self.options.look_ahead, are_alike=are_alike)
        return Sizes(limits, block_rows, self.options.part_rows or part_rows_of(block_rows, costs))

    def preview(self, rows: int) -> PreparedBlock:
        """Return a block of the first ``rows`` rows that pass the filter, with the errors of invalid ones."""
        return next(self._samples(cut(self._wanted(self.sources.spans()), _PART_ROWS), rows)).block

    def _wanted(self, spans: list[Sequence[int] | None]) -> list[Sequence[int] | None]:
        """Return the spans up to the last row that ``--limit`` leaves."""
        limit = self.options.limit
        if limit is None:
            return spans
        end = (0, 0) if limit == 0 else self._end(limit, counts(spans))
        return spans if end is None else until(spans, *end)

    def _end(self, limit: int, rows: list[int | None]) -> tuple[int, int] | None:
        condition = self.sources.row_filter.condition
        names = () if condition is None else condition.columns
        schema = pa.schema([self.binding.read_schema.field(name) for name in names])
        return first_unwanted(
            limit,
            rows,
            self.sources.row_filter,
            self.sources.names,
            lambda file: self.sources.range(Range(file, 0, rows[file] or 0), schema, _BLOCK_ROWS),
        )

    def _sample(self, parts: Sequence[Part]) -> _Sample | None:
        few = self._first(parts, _FEW_ROWS)
        if few is None:
            return None
        most = self.options.batch_rows or self.runner.max_rows
        costs = self._costs(few, BatchLimits(min(most, _FEW_ROWS), self.runner.max_bytes))
        fitting = min(_BLOCK_BYTES / costs.input_bytes, _SAMPLE_S / max(costs.seconds, 1e-9))
        return self._first(parts, max(_FEW_ROWS, min(most, _SAMPLE_ROWS, int(fitting))))

    def _first(self, parts: Sequence[Part], rows: int) -> _Sample | None:
        """Return about the first ``rows`` valid rows; None if there are none among `_SEARCHED_ROWS`."""
        searched = 0
        for sample in self._samples(parts, rows):
            if len(sample.block.origin.rows):
                return sample
            searched += sample.block.read_rows
            if searched >= _SEARCHED_ROWS:
                break
        return None

    def _samples(self, parts: Sequence[Part], rows: int) -> Iterator[_Sample]:
        for block in self.sources.blocks(parts, self.binding.read_schema, rows):
            prepared = self.preparation.prepare_block(block)
            as_taken = prepared.joined.nbytes + sum(tensor.nbytes for tensor in prepared.tensors.values())
            as_read = block.table.nbytes / max(block.table.num_rows, 1)
            yield _Sample(prepared, max(as_taken / max(len(prepared.origin.rows), 1), as_read, 1.0))

    def _costs(self, sample: _Sample, limits: BatchLimits) -> RowCosts:
        began = time.perf_counter()
        blocks = BlockRunner(self.runner, self.binding, limits, self.sources.names).run(iter([sample.block]))
        answers = [block.table for block in blocks]
        rows = len(sample.block.origin.rows)
        return RowCosts(
            input_bytes=sample.row_bytes,
            output_bytes=sum(table.nbytes for table in answers) / rows,
            seconds=(time.perf_counter() - began) / rows,
        )


def block_rows_of(
    limits: BatchLimits, costs: RowCosts | None, look_ahead: int | None, *, are_alike: bool = False
) -> int:
    """Return the rows of a block: ``look_ahead`` or whole batches. ``are_alike``: all rows have one shape."""
    if look_ahead is not None:
        return look_ahead
    most = float(_BLOCK_ROWS)
    if costs is not None:
        nbytes = max(costs.input_bytes, costs.output_bytes)
        block_bytes = _ALIKE_BYTES if are_alike else _BLOCK_BYTES
        most = min(most, block_bytes / nbytes, _rounded(_BLOCK_S / max(costs.seconds, 1e-9)))
    return limits.rows * max(1, int(most) // limits.rows)


def part_rows_of(block_rows: int, costs: RowCosts | None) -> int:
    """Return the rows of a part: whole blocks, at least one."""
    most = float(_PART_ROWS)
    if costs is not None:
        by_bytes = min(_PART_INPUT_BYTES / costs.input_bytes, _PART_OUTPUT_BYTES / max(costs.output_bytes, 1))
        most = min(most, by_bytes, _rounded(_PART_S / max(costs.seconds, 1e-9)))
    return block_rows * max(1, int(most) // block_rows)


def _rounded(rows: float) -> float:
    """Round down to a power of two, so that limits that depend on time are mostly equal from run to run."""
    return 2.0 ** int(max(rows, 1)).bit_length() / 2
