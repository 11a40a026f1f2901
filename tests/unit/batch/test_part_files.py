"""Parts, their notes, and when a job has too many error rows."""

import json
from collections.abc import Iterator
from threading import Event

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd.batch.blocks import FinishedBlock
from inferd.batch.errors import RUN_FAILED, BatchError, RowError
from inferd.batch.manifest import manifest_of
from inferd.batch.options import OnError
from inferd.batch.part_files import ErrorLimit, PartFiles
from inferd.batch.progress import Progress
from inferd.batch.writing import open_writer

SCHEMA = pa.schema([pa.field("y", pa.int64())])


def _block(part: int, values: list[int], *, is_last: bool, errors: list[RowError] | None = None) -> FinishedBlock:
    errors = errors or []
    return FinishedBlock(
        part=part,
        is_last=is_last,
        table=pa.RecordBatch.from_pydict({"y": values}, schema=SCHEMA),
        errors=errors,
        read_rows=len(values) + len(errors),
        batches=[len(values)],
    )


def _error(row: int, source: str = "b") -> RowError:
    return RowError(source, row, RUN_FAILED, "it failed")


class _Output:
    def __init__(self, path, on_error: OnError = "skip", before: int = 0) -> None:
        self.path = path
        self.manifest = manifest_of(str(path), ".parquet", is_file=False)
        self.progress = Progress()
        self.files = PartFiles(
            self.manifest,
            open_writer("parquet"),
            SCHEMA,
            ["b", "a"],
            ErrorLimit(on_error, before),
            self.progress,
        )

    def values(self, part: int) -> list[int]:
        return pq.read_table(self.path / f"part-{part:05d}.parquet")["y"].to_pylist()

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())


def test_part_has_all_its_blocks_and_a_note(tmp_path) -> None:
    """The blocks of a part become one file, and its note counts rows, errors and batches."""
    output = _Output(tmp_path)
    blocks = [_block(3, [1, 2], is_last=False), _block(3, [3], is_last=True, errors=[_error(7)])]
    assert list(output.files.write_parts(iter(blocks), Event())) == [3]
    assert output.values(3) == [1, 2, 3]
    note = output.manifest.done()[3]
    assert (note.rows, note.errors, note.batches) == (3, 1, {"2": 1, "1": 1})
    assert output.progress.snapshot().parts == 1


def test_error_rows_are_in_the_order_of_the_sources(tmp_path) -> None:
    """Blocks give them in the order in which they were found; files are in the order of the plan, not of names."""
    output = _Output(tmp_path)
    errors = [_error(2, "a"), _error(5), _error(1)]
    list(output.files.write_parts(iter([_block(0, [], is_last=True, errors=errors)]), Event()))
    lines = [json.loads(line) for line in (tmp_path / "_inferd/errors/00000.jsonl").read_text().splitlines()]
    assert [(line["source"], line["row"]) for line in lines] == [("b", 1), ("b", 5), ("a", 2)]


def test_stop_finishes_the_part_in_hand(tmp_path) -> None:
    """A part that was begun is finished after the signal to stop, and the next one is not begun."""
    output, stop = _Output(tmp_path), Event()

    def blocks() -> Iterator[FinishedBlock]:
        yield _block(0, [1], is_last=False)
        stop.set()
        yield _block(0, [2], is_last=True)
        pytest.fail("a block of the next part was asked for")

    list(output.files.write_parts(blocks(), stop))
    assert output.values(0) == [1, 2]
    assert list(output.manifest.done()) == [0]


def test_error_leaves_parts_before_it_and_no_temporary(tmp_path) -> None:
    """A part that fails leaves nothing; those before it stay."""
    output = _Output(tmp_path)

    def blocks() -> Iterator[FinishedBlock]:
        yield _block(0, [1], is_last=True)
        yield _block(1, [2], is_last=False)
        raise BatchError("the bucket is gone")

    with pytest.raises(BatchError, match="bucket"):
        list(output.files.write_parts(blocks(), Event()))
    assert output.names() == ["_inferd/parts/00000.json", "part-00000.parquet"]


@pytest.mark.parametrize(
    ("on_error", "before", "text"),
    [
        ("stop", 0, r"--on-error stop: 1 row has no answer, such as b, row 4: it failed \(RUN_FAILED\)"),
        (2, 2, r"--on-error 2: 3 rows have no answer, such as b, row 4"),
    ],
)
def test_too_many_errors_end_the_job_before_its_part_is_there(tmp_path, on_error, before, text) -> None:
    """The error rows of earlier runs count too; the part in which there are too many is not written."""
    output = _Output(tmp_path, on_error, before)
    with pytest.raises(BatchError, match=text):
        list(output.files.write_parts(iter([_block(0, [1], is_last=True, errors=[_error(4)])]), Event()))
    assert output.names() == []


@pytest.mark.parametrize(("on_error", "before"), [("skip", 10**6), (3, 2)])
def test_errors_up_to_the_limit_are_rows(tmp_path, on_error, before) -> None:
    """As many error rows as were permitted do not end the job."""
    output = _Output(tmp_path, on_error, before)
    list(output.files.write_parts(iter([_block(0, [1], is_last=True, errors=[_error(4)])]), Event()))
    assert output.manifest.done()[0].errors == 1


def test_part_without_its_last_block_is_not_written(tmp_path) -> None:
    """A part whose blocks end too early is a defect of this program, and is never taken for a whole one."""
    output = _Output(tmp_path)
    with pytest.raises(RuntimeError, match="last block of part 0"):
        list(output.files.write_parts(iter([_block(0, [1], is_last=False)]), Event()))
    assert output.names() == []
