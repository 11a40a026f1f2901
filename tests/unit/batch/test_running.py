"""Blocks through a runner: their order, and the rows that fail."""

from concurrent.futures import Future

import numpy as np
import pyarrow as pa
import pytest

from inferd.batch.binding import Binding
from inferd.batch.blocks import BatchLimits, Origin, PreparedBlock
from inferd.batch.errors import INVALID_INPUT, BatchError, RowError
from inferd.batch.running import BlockRunner
from inferd.batch.tensors import Dense
from tests.unit.batch.fake_runner import FakeRunner, signature

BINDING = Binding(
    read_schema=pa.schema([("x", pa.int64())]),
    inputs={"x": ("x",)},
    joined=(),
    outputs={"y": "doubled"},
    output_schema=pa.schema([("doubled", pa.int64())]),
    row_ids=False,
    preparation=None,
)
SOURCES = ("a.csv", "b.csv")


def block(*values, part=0, errors=()):
    """Return a block of rows, whose numbers in ``b.csv`` are ten times their values."""
    x = np.array(values, np.int64)
    return PreparedBlock(
        part=part,
        is_last=True,
        origin=Origin(np.ones(len(x), np.int64), 10 * x),
        joined=pa.RecordBatch.from_struct_array(pa.array([{}] * len(x), pa.struct([]))),
        tensors={"x": Dense(x)},
        errors=list(errors),
        read_rows=len(x) + len(errors),
    )


def run(runner, *blocks, rows=4):
    return list(BlockRunner(runner, BINDING, BatchLimits(rows, 10**6), SOURCES).run(iter(blocks)))


def test_answers_are_in_order():
    """Of blocks and of their rows, with the sizes of their batches."""
    finished = run(FakeRunner(), block(*range(6)), block(7, part=1), block(part=2))
    assert [each.table.column(0).to_pylist() for each in finished] == [[0, 2, 4, 6, 8, 10], [14], []]
    assert [(each.part, each.batches) for each in finished] == [(0, [4, 2]), (1, [1]), (2, [])]


def test_failing_row_is_an_error():
    """With its source and number, and those of its batch have answers."""
    [finished] = run(FakeRunner(poison=frozenset({5, 6})), block(*range(8), errors=[lost := error(3)]))
    assert finished.table.column(0).to_pylist() == [0, 2, 4, 6, 8, 14]
    assert finished.errors == [
        lost,
        RowError("b.csv", 50, "RUN_FAILED", "it does not like 5"),
        RowError("b.csv", 60, "RUN_FAILED", "it does not like 6"),
    ]


def error(row):
    return RowError("b.csv", row, INVALID_INPUT, "lost before")


def test_one_failing_row_takes_few_runs():
    """Two for each halving."""
    runner = FakeRunner(poison=frozenset({70}))
    run(runner, block(*range(128)), rows=128)
    assert runner.sizes == [128, 64, 64, 32, 32, 16, 16, 8, 8, 4, 4, 2, 2, 1, 1]


def test_many_failing_rows_take_one_run_each():
    """After some halvings all rows run by themselves."""
    runner = FakeRunner(poison=frozenset(range(1000)))
    [finished] = run(runner, block(*range(1000)), rows=1000)
    assert [each.row for each in finished.errors] == [10 * row for row in range(1000)]
    assert len(runner.sizes) == 1000 + 1 + 2 * 16


def test_batch_axis_that_is_not_the_first():
    """Rows are along the axis of the model, in and out."""
    runner = FakeRunner(signature=signature((2,), axis=1))
    wide = block(1, 2, 3)
    wide.tensors["x"] = Dense(np.arange(6).reshape(3, 2))
    binding = Binding(
        read_schema=BINDING.read_schema,
        inputs=BINDING.inputs,
        joined=(),
        outputs={"y": "doubled"},
        output_schema=pa.schema([("doubled", pa.list_(pa.int64(), 2))]),
        row_ids=False,
        preparation=None,
    )
    [finished] = BlockRunner(runner, binding, BatchLimits(4, 10**6), SOURCES).run(iter([wide]))
    assert runner.inputs[0].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert finished.table.column(0).to_pylist() == [[0, 2], [4, 6], [8, 10]]


class Held(FakeRunner):
    """Has no answer to a run before the next one has begun."""

    def submit(self, inputs, outputs):
        answer = super().submit(inputs, outputs)
        held = Future()
        self.held.append((held, answer))
        if len(self.held) > 1:
            before, outcome = self.held.pop(0)
            before.set_result(outcome.result())
        return held


def test_next_block_is_begun_before_this_one_ends():
    """So the runner is never without work; and no more blocks are taken."""
    runner, taken = Held(), []
    runner.held = []

    def blocks():
        for index in range(4):
            taken.append(index)
            yield block(index)

    finished = BlockRunner(runner, BINDING, BatchLimits(4, 10**6), SOURCES).run(blocks())
    assert next(finished).table.column(0).to_pylist() == [0]
    assert taken == [0, 1]


class Broken(FakeRunner):
    """Runs nothing any more."""

    def submit(self, inputs, outputs):
        answer = Future()
        answer.set_exception(BatchError("the device is lost"))
        return answer


def test_lost_model_ends_the_job():
    """Its rows are no error rows."""
    with pytest.raises(BatchError, match="lost"):
        run(Broken(), block(1, 2))


@pytest.mark.parametrize(("places", "size", "begun"), [(1, 8, 2), (1, 4, 3), (2, 4, 4), (8, 4, 4), (2, 16, 2)])
def test_blocks_are_begun_until_the_runner_has_work_ahead(places, size, begun):
    """Two batches for each place beside those of the first block, or a few blocks, before that is waited for."""
    runner = _Waiting(places=places)
    taken = []

    def blocks():
        for part in range(10):
            taken.append(part)
            yield block(*range(size), part=part)
        runner.answer()

    runner.on_wait = lambda: (taken.append("waits"), runner.answer())
    next(BlockRunner(runner, BINDING, BatchLimits(4, 10**6), SOURCES).run(blocks()))
    assert taken.index("waits") == begun


class _Waiting(FakeRunner):
    """Answers only when it is told to; ``on_wait`` is called when an answer is waited for."""

    on_wait = None

    def submit(self, inputs, outputs):
        """Keep ``inputs``."""
        answer = _Answer(self.on_wait)
        self.waiting = [*getattr(self, "waiting", []), (answer, super().submit(inputs, outputs))]
        return answer

    def answer(self):
        """Give all answers."""
        for answer, found in self.waiting:
            answer.set_result(found.result())
        self.waiting = []


class _Answer(Future):
    def __init__(self, on_wait):
        super().__init__()
        self._on_wait = on_wait

    def result(self, timeout=None):
        if not self.done():
            self._on_wait()
        return super().result(timeout)
