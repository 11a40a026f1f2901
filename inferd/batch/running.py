"""Runs the batches of blocks, keeps the order of blocks, and finds the rows that fail."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inferd.batch.binding import Binding
from inferd.batch.blocks import BatchLimits, FinishedBlock, PreparedBlock, Selection
from inferd.batch.errors import RUN_FAILED, RowError, RowsFailedError
from inferd.batch.grouping import batches
from inferd.batch.outputs import OutputRows
from inferd.batch.ports import ModelRunner
from inferd.batch.tensors import to_batch_axis
from inferd.runtime.signature import Array

#: Blocks whose batches run or have run, while the first of them is put together.
_BLOCKS_AHEAD = 2

_Pending = tuple[Selection, "Future[Mapping[str, Array]]"]


@dataclass(slots=True)
class _Begun:
    block: PreparedBlock
    pending: list[_Pending]
    sizes: list[int]


class BlockRunner:
    """Runs blocks with ``runner``. ``sources`` are the addresses of the plan's files. One thread."""

    def __init__(self, runner: ModelRunner, binding: Binding, limits: BatchLimits, sources: Sequence[str]) -> None:
        self._runner = runner
        self._binding = binding
        self._limits = limits
        self._sources = sources
        self._outputs = tuple(binding.outputs)

    def finished(self, blocks: Iterator[PreparedBlock]) -> Iterator[FinishedBlock]:
        """Yield ``blocks`` with their answers, in order. Raises `BatchError` if nothing runs any more."""
        begun: deque[_Begun] = deque()
        for block in blocks:
            begun.append(self._begin(block))
            # So the runner is never without work while a block is put together.
            if len(begun) == _BLOCKS_AHEAD:
                yield self._finish(begun.popleft())
        while begun:
            yield self._finish(begun.popleft())

    def _begin(self, block: PreparedBlock) -> _Begun:
        rows = len(block.origin.rows)
        selections = list(batches(self._runner.signature, block.tensors, rows, self._limits))
        pending = [(selection, self._submit(block, selection)) for selection in selections]
        return _Begun(block, pending, [_size(selection) for selection in selections])

    def _submit(self, block: PreparedBlock, selection: Selection) -> "Future[Mapping[str, Array]]":
        signature = self._runner.signature
        inputs = {
            name: to_batch_axis(signature.input(name), tensor.rows(selection)) for name, tensor in block.tensors.items()
        }
        return self._runner.submit(inputs, self._outputs)

    def _finish(self, begun: _Begun) -> FinishedBlock:
        block = begun.block
        answers = OutputRows(self._binding, self._runner.signature, len(block.origin.rows))
        errors: list[RowError] = []
        for selection, future in begun.pending:
            for part, outcome in self._outcomes(block, selection, future):
                if isinstance(outcome, RowsFailedError):
                    errors.append(self._row_error(block, int(_rows(part)[0]), outcome))
                else:
                    answers.put(part, outcome)
        return FinishedBlock(
            part=block.part,
            is_last=block.is_last,
            table=answers.finish(block.joined, block.origin, self._sources),
            errors=sorted([*block.errors, *errors], key=lambda error: (error.source, error.row or 0)),
            read_rows=block.read_rows,
            batches=begun.sizes,
        )

    def _outcomes(
        self, block: PreparedBlock, selection: Selection, future: "Future[Mapping[str, Array]]"
    ) -> Iterator[tuple[Selection, Mapping[str, Array] | RowsFailedError]]:
        """Yield the answers of a batch; those of its halves if it fails, down to single rows."""
        try:
            yield selection, future.result()
        except RowsFailedError as error:
            rows = _rows(selection)
            if len(rows) == 1:
                yield selection, error
                return
            middle = len(rows) // 2
            # Both are on their way before the first is waited for.
            halves = [(half, self._submit(block, half)) for half in (rows[:middle], rows[middle:])]
            for half, begun in halves:
                yield from self._outcomes(block, half, begun)

    def _row_error(self, block: PreparedBlock, row: int, error: RowsFailedError) -> RowError:
        origin = block.origin
        return RowError(
            self._sources[origin.files[row]], int(origin.rows[row]), error.code or RUN_FAILED, error.message
        )


def _rows(selection: Selection) -> NDArray[np.int64]:
    return np.arange(selection.start, selection.stop) if isinstance(selection, slice) else selection


def _size(selection: Selection) -> int:
    return selection.stop - selection.start if isinstance(selection, slice) else len(selection)
