"""Tensors of blocks: rows that are no valid input are errors, and others are untouched."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.binding import Binding, Columns, bind
from inferd.batch.blocks import BadRows, Block, ColumnTensor, Origin
from inferd.batch.errors import INVALID_INPUT, NOT_PREPARED, RowError
from inferd.batch.options import JobOptions
from inferd.batch.ports import Preparation, Prepared
from inferd.batch.preparation.blocks import BlockPreparation
from inferd.batch.tensors import Dense
from inferd.dtypes import BY_NAME
from inferd.runtime.signature import ModelSignature, TensorSpec


def _spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=BY_NAME["FP32"], shape=("batch", *shape), batch_axis=0)


SIGNATURE = ModelSignature(inputs=(_spec("a", 2), _spec("b")), outputs=(_spec("y"),), batchable=True)


@dataclass
class _Lengths:
    """Prepares texts as their lengths; empty ones are bad."""

    column: str = "text"
    inputs: tuple[str, ...] = ("b",)
    identity: dict[str, str] = field(default_factory=dict)

    def __call__(self, column: pa.Array) -> tuple[dict[str, ColumnTensor], BadRows]:
        lengths = np.array([len(text) for text in column.to_pylist()], np.float32)
        return {"b": Dense(lengths)}, {int(row): "an empty text" for row in np.flatnonzero(lengths == 0)}


class _Workers:
    """Prepares columns at once, and counts them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.begun = 0

    def submit(self, column: pa.Array) -> "Future[Prepared]":
        self.begun += 1
        future: Future[Prepared] = Future()
        future.set_result(_Lengths()(column))
        return future


def _binding(schema: pa.Schema, preparation: Preparation | None = None, **options: object) -> Binding:
    return bind(
        SIGNATURE, Columns(schema=schema), JobOptions(model="m", inputs=("x",), output="y", **options), preparation
    )


def _block(columns: dict[str, pa.Array], first_row: int = 10) -> Block:
    table = pa.RecordBatch.from_pydict(columns)
    rows = np.arange(first_row, first_row + table.num_rows)
    return Block(
        part=1,
        is_last=True,
        origin=Origin(np.zeros(len(rows), np.int64), rows),
        table=table,
        errors=[RowError("file", 3, "UNREADABLE", "lost")],
        read_rows=len(rows),
    )


def _pairs(values: Sequence[list[float] | None]) -> pa.Array:
    return pa.array(values, pa.list_(pa.float32(), 2))


def test_bad_rows_become_errors_of_their_own() -> None:
    """A row with a null in either input is one error with the column; the others keep their values and columns."""
    block = _block({"a": _pairs([[1, 2], None, [5, 6]]), "b": pa.array([1.0, None, 3.0], pa.float32())})
    binding = _binding(block.table.schema, join=("b",))
    prepared = BlockPreparation(binding, SIGNATURE, ["file"], None).prepare_block(block)
    assert prepared.origin.rows.tolist() == [10, 12]
    assert prepared.joined["b"].to_pylist() == [1.0, 3.0]
    np.testing.assert_array_equal(prepared.tensors["a"].rows(slice(None)), [[1, 2], [5, 6]])
    np.testing.assert_array_equal(prepared.tensors["b"].rows(slice(None)), [1, 3])
    assert prepared.errors == [
        block.errors[0],
        RowError("file", 11, INVALID_INPUT, 'column "a": expected FP32 [2], got null'),
    ]


def test_several_columns_become_one_dimension() -> None:
    """Columns that are mapped to one input are its dimension; an error names the one it is in."""
    columns = {"p0": pa.array([1.0, 2.0]), "p1": pa.array([3.0, None]), "b": pa.array([0.0, 0.0])}
    block = _block(columns)
    binding = _binding(block.table.schema, mapping={"a": "p*"})
    prepared = BlockPreparation(binding, SIGNATURE, ["file"], None).prepare_block(block)
    np.testing.assert_array_equal(prepared.tensors["a"].rows(slice(None)), [[1, 3]])
    assert prepared.errors[1].message == 'column "p1" for input "a": expected FP32 [], got null'


def test_prepared_columns_and_others_are_one_block() -> None:
    """What a preparation fills stands beside what columns have; its bad rows have a code of their own."""
    block = _block({"a": _pairs([[1, 2], [3, 4]]), "text": pa.array(["abc", ""])})
    binding = _binding(block.table.schema, _Lengths())
    prepared = BlockPreparation(binding, SIGNATURE, ["file"], None).prepare_block(block)
    np.testing.assert_array_equal(prepared.tensors["b"].rows(slice(None)), [3])
    assert prepared.errors[1:] == [RowError("file", 11, NOT_PREPARED, "an empty text")]


@pytest.mark.parametrize(
    ("workers", "begun"), [(0, [1, 2, 3, 4, 5, 6]), (2, [3, 4, 5, 6, 6, 6]), (9, [9, 12, 12, 12, 12, 12])]
)
def test_workers_are_ahead_and_blocks_in_order(workers: int, begun: list[int]) -> None:
    """Up to four more blocks are begun before the first is waited for; with more workers they are cut, not more."""
    texts = [["a"], ["aa", "", "aaa", "aaaa"], ["aaaaa"], ["aaaaaa", "aaaaaaa"], ["aaaaaaaa"] * 3, [""] * 3]
    blocks = [
        _block({"a": _pairs([[0, 0]] * len(each)), "text": pa.array(each)}, 10 * row) for row, each in enumerate(texts)
    ]
    binding, fake = _binding(blocks[0].table.schema, _Lengths()), _Workers(workers)
    counts, lengths, failed = [], [], []
    for block in BlockPreparation(binding, SIGNATURE, ["file"], fake).prepare(iter(blocks)):
        counts.append(fake.begun)
        lengths += block.tensors["b"].rows(slice(None)).tolist()
        failed += [error.row for error in block.errors[1:]]
    assert counts == begun
    assert lengths == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert failed == [11, 50, 51, 52]
