"""Run the batches of blocks, in the order of the blocks, and find the rows that fail."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice, pairwise

from inferd.batch.binding import Binding
from inferd.batch.blocks import BatchLimits, FinishedBlock, PreparedBlock, Selection
from inferd.batch.errors import RowError, RowsFailedError
from inferd.batch.grouping import batches, size
from inferd.batch.outputs import OutputRows
from inferd.batch.ports import BatchRunner
from inferd.batch.tensors import to_batch_axis
from inferd.runtime.signature import Array

#: Blocks in progress: at least the first number, and up to the second while they have few batches.
_BLOCKS_AHEAD, _MOST_BLOCKS = 2, 4
#: Batches for each place of the runner that are submitted before the first block is waited for.
_BATCHES_AHEAD = 2
#: Failures of a batch and its pieces up to which pieces are halved; then each row runs by itself. One failing row of a
#: thousand takes eleven failures. If all rows fail, halving would take two runs for each row.
_MOST_HALVED = 16

_Answer = Future[Mapping[str, Array]]


@dataclass(slots=True)
class _Begun:
    """A block whose batches run: those ``pending`` in their order, and the answers of the others."""

    block: PreparedBlock
    answers: OutputRows
    errors: list[RowError]
    pending: deque[tuple[Selection, _Answer]] = field(default_factory=deque)
    sizes: list[int] = field(default_factory=list)


class BlockRunner:
    """Runs blocks with ``runner``. ``sources`` are the addresses of the plan's files. One thread."""

    def __init__(self, runner: BatchRunner, binding: Binding, limits: BatchLimits, sources: Sequence[str]) -> None:
        self._runner = runner
        self._binding = binding
        self._limits = limits
        self._sources = sources
        self._outputs = tuple(binding.outputs)

    def run(self, blocks: Iterator[PreparedBlock]) -> Iterator[FinishedBlock]:
        """Yield ``blocks`` with their answers, in order. Raises `BatchError` if no further run can succeed.

        The next block is submitted before the answers of a block are waited for, so that the runner is never idle.
        """
        begun: deque[_Begun] = deque()
        for block in blocks:
            begun.append(self._begin(block))
            for selection in batches(self._runner.signature, block.tensors, len(block.origin.rows), self._limits):
                begun[-1].pending.append((selection, self._submit(block, selection)))
                begun[-1].sizes.append(size(selection))
                for each in begun:
                    self._take_answers(each, wait=False)
            while begun and (not begun[0].pending or self._has_ahead(begun)):
                yield self._finish(begun.popleft())
        while begun:
            yield self._finish(begun.popleft())

    def _has_ahead(self, begun: Collection[_Begun]) -> bool:
        """Return True if the runner has enough work to wait for the first block."""
        batches_ahead = sum(len(each.pending) for each in islice(begun, 1, None))
        is_full = batches_ahead >= _BATCHES_AHEAD * self._runner.places or len(begun) >= _MOST_BLOCKS
        return len(begun) >= _BLOCKS_AHEAD and is_full

    def _begin(self, block: PreparedBlock) -> _Begun:
        return _Begun(
            block, OutputRows(self._binding, self._runner.signature, len(block.origin.rows)), list(block.errors)
        )

    def _submit(self, block: PreparedBlock, selection: Selection) -> _Answer:
        signature = self._runner.signature
        inputs = {
            name: to_batch_axis(signature.input(name), tensor.rows(selection)) for name, tensor in block.tensors.items()
        }
        return self._runner.submit(inputs, self._outputs)

    def _take_answers(self, begun: _Begun, *, wait: bool) -> None:
        """Take the answers that are there, in the order of the batches; with ``wait`` all of them."""
        while begun.pending and (wait or begun.pending[0][1].done()):
            selection, answer = begun.pending.popleft()
            self._take_answer(begun, selection, answer)

    def _finish(self, begun: _Begun) -> FinishedBlock:
        self._take_answers(begun, wait=True)
        block = begun.block
        return FinishedBlock(
            part=block.part,
            is_last=block.is_last,
            table=begun.answers.finish(block.joined, block.origin, self._sources),
            errors=sorted(begun.errors, key=lambda error: (error.source, error.row or 0)),
            read_rows=block.read_rows,
            batches=begun.sizes,
        )

    def _take_answer(self, begun: _Begun, selection: Selection, answer: _Answer) -> None:
        """Take the answer of a batch. After a failure run its halves, and theirs; in the end each row by itself."""
        waiting = deque([(selection, answer)])
        failures = 0
        while waiting:
            selection, answer = waiting.popleft()
            try:
                begun.answers.put(selection, answer.result())
            except RowsFailedError as error:
                failures += 1
                if size(selection) == 1:
                    begun.errors.append(self._row_error(begun.block, selection, error))
                    continue
                pieces = 2 if failures <= _MOST_HALVED else size(selection)
                # All are submitted before the first is waited for.
                waiting.extend((piece, self._submit(begun.block, piece)) for piece in _cut(selection, pieces))

    def _row_error(self, block: PreparedBlock, selection: Selection, error: RowsFailedError) -> RowError:
        row = selection.start if isinstance(selection, slice) else int(selection[0])
        origin = block.origin
        return RowError(self._sources[int(origin.files[row])], int(origin.rows[row]), error.code, error.message)


def _cut(selection: Selection, pieces: int) -> list[Selection]:
    """Cut ``selection`` into equal ``pieces``."""
    ends = [size(selection) * piece // pieces for piece in range(pieces + 1)]
    if isinstance(selection, slice):
        return [slice(selection.start + start, selection.start + end) for start, end in pairwise(ends)]
    return [selection[start:end] for start, end in pairwise(ends)]
