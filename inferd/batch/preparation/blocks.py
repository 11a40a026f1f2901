"""Make the tensors of blocks from their columns; rows with invalid values become errors."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import pyarrow as pa

from inferd.batch.binding import Binding
from inferd.batch.blocks import BadRows, Block, ColumnTensor, PreparedBlock
from inferd.batch.errors import INVALID_INPUT, NOT_PREPARED, RowError
from inferd.batch.ports import Prepared
from inferd.batch.preparation.pool import PreparationPool
from inferd.batch.tensors import column_tensor, concatenated, stacked
from inferd.plain_text import escaped
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Blocks that workers prepare while an earlier one is assembled. More workers do not raise it, as all are in memory:
#: each block is cut for several workers instead.
_BLOCKS_AHEAD = 4


class BlockPreparation:
    """Makes the tensors of blocks. Threads: one.

    ``sources`` are the names of the files for error rows. ``path_column`` has the paths of pictures, for their errors.
    """

    def __init__(
        self,
        binding: Binding,
        signature: ModelSignature,
        sources: Sequence[str],
        workers: PreparationPool | None,
        *,
        path_column: str | None = None,
    ) -> None:
        self._binding = binding
        self._signature = signature
        self._sources = sources
        self._workers = workers
        self._path_column = path_column

    def prepare(self, blocks: Iterator[Block]) -> Iterator[PreparedBlock]:
        """Yield ``blocks`` with their tensors, in order, while workers prepare some of the next."""
        waiting: deque[tuple[Block, list[Future[Prepared]]]] = deque()
        ahead = min(self._workers.size, _BLOCKS_AHEAD) if self._workers is not None else 0
        for block in blocks:
            waiting.append((block, self._begun(block)))
            if len(waiting) > ahead:
                yield self._assembled(*waiting.popleft())
        while waiting:
            yield self._assembled(*waiting.popleft())

    def prepare_block(self, block: Block) -> PreparedBlock:
        """Wait for and return ``block`` with its tensors."""
        return self._assembled(block, self._begun(block))

    def _begun(self, block: Block) -> "list[Future[Prepared]]":
        """Start the preparation of the block; return a future for each piece of its column, none without one."""
        preparation, workers = self._binding.preparation, self._workers
        if preparation is None:
            return []
        column = block.table[preparation.column]
        if workers is None:
            done: Future[Prepared] = Future()
            done.set_result(preparation(column))
            return [done]
        pieces = max(1, -(-workers.size // _BLOCKS_AHEAD))
        rows = max(1, -(-len(column) // pieces))
        return [workers.submit(column.slice(first, rows)) for first in range(0, max(1, len(column)), rows)]

    def _assembled(self, block: Block, prepared: "Sequence[Future[Prepared]]") -> PreparedBlock:
        """Return ``block`` with the ``prepared`` tensors and those of its columns, without the bad rows."""
        tensors, not_prepared = _in_one([each.result() for each in prepared])
        table = block.table
        problems = {row: (NOT_PREPARED, text) for row, text in not_prepared.items()}
        for name, columns in self._binding.inputs.items():
            tensors[name], bad = _tensor(self._signature.input(name), {column: table[column] for column in columns})
            for row, text in bad.items():
                problems.setdefault(row, (INVALID_INPUT, text))
        joined = table.select(list(self._binding.joined))
        kept = np.ones(len(block.origin.rows), np.bool_)
        kept[list(problems)] = False
        is_whole = not problems
        return PreparedBlock(
            part=block.part,
            is_last=block.is_last,
            origin=block.origin if is_whole else block.origin.select(kept),
            joined=joined if is_whole else joined.filter(pa.array(kept)),
            tensors=tensors if is_whole else {name: tensor.select(kept) for name, tensor in tensors.items()},
            errors=block.errors + self._errors(block, problems),
            read_rows=block.read_rows,
        )

    def _errors(self, block: Block, problems: Mapping[int, tuple[str, str]]) -> list[RowError]:
        files, rows = block.origin.files, block.origin.rows
        paths = None if self._path_column is None else block.table[self._path_column]
        return [
            RowError(
                self._sources[int(files[index])],
                int(rows[index]),
                code,
                text if paths is None else f"{escaped(paths[index].as_py())}: {text}",
            )
            for index, (code, text) in problems.items()
        ]


def _in_one(pieces: Sequence[Prepared]) -> Prepared:
    """Concatenate the rows of ``pieces``."""
    bad: BadRows = {}
    rows = 0
    for tensors, own in pieces:
        bad |= {rows + row: text for row, text in own.items()}
        rows += len(next(iter(tensors.values())))
    names = pieces[0][0] if pieces else ()
    return {name: concatenated([tensors[name] for tensors, _ in pieces], bad) for name in names}, bad


def _tensor(spec: TensorSpec, columns: Mapping[str, pa.Array]) -> tuple[ColumnTensor, BadRows]:
    if len(columns) == 1:
        [(name, column)] = columns.items()
        tensor, bad = column_tensor(spec, column)
        return tensor, _of_column(name, spec, bad)
    # Each column has one element of the only dimension.
    element = TensorSpec(name=spec.name, datatype=spec.datatype, shape=(), batch_axis=None)
    parts = [(name, *column_tensor(element, column)) for name, column in columns.items()]
    # A row's error is that of the first column, which is merged last.
    problems: BadRows = {}
    for name, _, bad in reversed(parts):
        problems |= _of_column(name, spec, bad)
    return stacked([tensor for _, tensor, _ in parts]), problems


def _of_column(name: str, spec: TensorSpec, bad: BadRows) -> BadRows:
    column = f'column "{escaped(name)}"'
    where = column if name == spec.name else f'{column} for input "{spec.name}"'
    return {row: f"{where}: {text}" for row, text in bad.items()}
