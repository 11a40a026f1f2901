"""Whole jobs in this process: each row once, errors as rows, and a clean end whatever happens."""

import json as plain_json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, json

from inferd.batch import share
from inferd.batch.errors import BatchError, InUseError, UsageError
from inferd.batch.job import Job
from inferd.batch.options import JobOptions, OutputFormat, RunOptions, TokenizeOptions
from inferd.batch.ports import OpenWriter, TableWriter
from inferd.batch.progress import Summary
from inferd.config.settings import Settings
from tests import onnx_models
from tests.disk_faults import tree

ROWS = 100
PARTS = 5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers ten times its index, and fails from 4 on."""
    return onnx_models.save(onnx_models.lookup(), tmp_path_factory.mktemp("model") / "lookup.onnx")


def _write(path: Path, values: Sequence[int | None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"index": pa.array(values, pa.int64()), "id": pa.array(range(len(values)), pa.int64())})
    pq.write_table(table, path)
    return path


@pytest.fixture
def options(model: Path, tmp_path: Path) -> JobOptions:
    """A job of five parts without an error."""
    source = _write(tmp_path / "rows.parquet", [row % 4 for row in range(ROWS)])
    return JobOptions(
        model=str(model),
        inputs=(str(source),),
        output=str(tmp_path / "out"),
        join=("id",),
        batch_rows=8,
        look_ahead=16,
        part_rows=ROWS // PARTS,
    )


def _run(options: JobOptions, **run_options: object) -> Summary:
    try:
        return Job(options, RunOptions(**run_options), Settings()).run(Event())
    finally:
        assert [each.name for each in threading.enumerate() if "inferd-batch" in each.name] == []


def _answers(options: JobOptions) -> dict[int, float]:
    table = pq.read_table(options.output)
    ids = table["id"].to_pylist()
    assert ids == sorted(set(ids)), "the order is that of the source, and each row is there once"
    return dict(zip(ids, table["y"].to_pylist(), strict=True))


def _errors(options: JobOptions) -> list[dict[str, object]]:
    return [plain_json.loads(line) for line in (Path(options.output) / "_inferd/errors.jsonl").read_text().splitlines()]


def _files(options: JobOptions) -> list[str]:
    root = Path(options.output)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_each_row_has_its_answer_once(options: JobOptions) -> None:
    """All rows are in the output in the order of the source, and only what is needed stays beside them."""
    summary = _run(options)
    assert _answers(options) == {row: 10.0 * (row % 4) for row in range(ROWS)}
    assert (summary.rows, summary.errors, summary.parts, summary.is_complete) == (ROWS, 0, PARTS, True)
    assert sum(rows * count for rows, count in summary.batches.items()) == ROWS
    assert _files(options) == [
        "_inferd/manifest.json",
        "_inferd/summary.json",
        *(f"part-{part:05d}.parquet" for part in range(PARTS)),
    ]


def _read(path: Path) -> dict[str, list[float]]:
    """Return the columns of a file of any format."""
    match path.suffix:
        case ".parquet":
            columns = pq.read_table(path).to_pydict()
        case ".arrow":
            columns = pa.ipc.open_file(path).read_all().to_pydict()
        case ".csv":
            columns = csv.read_csv(path).to_pydict()
        case ".jsonl":
            columns = json.read_json(path).to_pydict()
        case ".npz":
            with np.load(path) as arrays:
                columns = {name: array.tolist() for name, array in arrays.items()}
        case _:
            columns = {"y": np.load(path).tolist()}
    return columns


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl", "npz", "npy"])
def test_parts_become_one_file(options: JobOptions, tmp_path: Path, suffix: str) -> None:
    """An output with a suffix is one file with all rows, and its parts are deleted once it is there."""
    path = tmp_path / f"answers.{suffix}"
    options = replace(options, output=str(path), join=None)
    assert _run(options).is_complete
    assert _read(path) == {"y": [10.0 * (row % 4) for row in range(ROWS)]}
    work = tmp_path / f"answers.{suffix}.inferd"
    assert sorted(each.name for each in work.rglob("*")) == ["manifest.json", "summary.json"]
    assert _run(options).batches == {}
    path.unlink()
    with pytest.raises(BatchError, match=r"expected [\d,]+ bytes as of the complete job, no such file"):
        _run(options)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_of_text_files_that_do_not_fit_are_errors(options: JobOptions, tmp_path: Path, suffix: str) -> None:
    """A value that is no number is an error row with its place; the types of others are those of the model."""
    source = tmp_path / f"rows.{suffix}"
    if suffix == "csv":
        source.write_text("index,id\n0,0\n1,1\nnothing,2\n3,3\n")
    else:
        source.write_text('{"index":0,"id":0}\n{"index":1,"id":1}\n{"index":"nothing","id":2}\n{"index":3,"id":3}\n')
    options = replace(options, inputs=(str(source),))
    summary = _run(options)
    assert _answers(options) == {0: 0.0, 1: 10.0, 3: 30.0}
    assert summary.errors == 1
    assert [error["row"] for error in _errors(options)] == [2]


def test_complete_job_runs_nothing(options: JobOptions) -> None:
    """The same job again tells what was done, and reads no row."""
    _run(options)
    summary = _run(options)
    assert (summary.rows, summary.resumed_rows, summary.batches) == (ROWS, ROWS, {})
    assert summary.has_finished


def test_job_that_was_stopped_continues_where_it_was(options: JobOptions) -> None:
    """A stop before the first part leaves all to do; the next run does all of it and each later one nothing."""
    stop = Event()
    stop.set()
    stopped = Job(options, RunOptions(), Settings()).run(stop)
    assert (stopped.rows, stopped.has_finished, stopped.is_complete) == (0, False, False)
    assert _run(options).rows == ROWS


def test_failed_job_keeps_its_parts_and_the_next_one_runs_the_others(
    options: JobOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the third part: two parts stay and nothing else, and only the other three are run later."""
    opened = 0

    def full_disk(output_format: OutputFormat) -> OpenWriter:
        def open_writer(file: BinaryIO, schema: pa.Schema) -> TableWriter:
            nonlocal opened
            opened += 1
            if opened > 2:
                raise BatchError("the disk is full")
            return real(file, schema)

        real = original(output_format)
        return open_writer

    original = share.open_writer
    with monkeypatch.context() as patched:
        patched.setattr(share, "open_writer", full_disk)
        with pytest.raises(BatchError, match="the disk is full"):
            _run(options)
    assert [name for name in _files(options) if "part-" in name] == ["part-00000.parquet", "part-00001.parquet"]
    assert not [name for name in _files(options) if "tmp" in name or "lock" in name]
    summary = _run(options)
    assert (summary.resumed_rows, summary.rows) == (2 * ROWS // PARTS, ROWS)
    assert sum(rows * count for rows, count in summary.batches.items()) == 3 * ROWS // PARTS
    assert len(_answers(options)) == ROWS


def test_changed_job_is_refused(options: JobOptions) -> None:
    """Another option, or another input, is another job: it says which, and replaces answers only when told to."""
    _run(options)
    with pytest.raises(BatchError, match=r"options row_ids: false before, true now.*--overwrite"):
        _run(replace(options, row_ids=True))
    _write(Path(options.inputs[0]), [1] * ROWS)
    with pytest.raises(BatchError, match=r"rows.parquet has changed.*--overwrite"):
        _run(options)
    _run(options, overwrite=True)
    assert set(_answers(options).values()) == {10.0}


def test_input_that_changes_while_the_job_runs(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is not completed, as answers may be of either content; files that are new are no matter."""

    def open_writer(output_format: OutputFormat) -> OpenWriter:
        _write(source.with_name("new.parquet"), [1])
        if has_changed:
            _write(source, [1] * ROWS)
        return original(output_format)

    source, has_changed, original = Path(options.inputs[0]), True, share.open_writer
    options = replace(options, inputs=(f"{source.parent}/*.parquet",))
    monkeypatch.setattr(share, "open_writer", open_writer)
    with pytest.raises(BatchError, match=r"rows\.parquet has changed while the job ran; --overwrite starts over"):
        _run(options)
    assert "_inferd/summary.json" not in _files(options)
    source.with_name("new.parquet").unlink()
    has_changed = False
    assert _run(options, overwrite=True).rows == ROWS


def test_failing_row_costs_only_itself(options: JobOptions) -> None:
    """A row that the model fails on, and one that is null, are error rows; all others have their answers."""
    values: list[int | None] = [row % 4 for row in range(ROWS)]
    values[33], values[70] = 99, None
    _write(Path(options.inputs[0]), values)
    summary = _run(options)
    assert (summary.rows, summary.errors) == (ROWS - 2, 2)
    assert _answers(options) == {row: 10.0 * (row % 4) for row in range(ROWS) if row not in (33, 70)}
    errors = _errors(options)
    assert [(error["source"], error["row"], error["code"]) for error in errors] == [
        (options.inputs[0], 33, "RUN_FAILED"),
        (options.inputs[0], 70, "INVALID_INPUT"),
    ]
    assert errors[1]["message"] == 'column "index": expected INT64 [], got null'
    assert _run(options).errors == 2


def test_error_rows_go_to_the_file_that_is_named(options: JobOptions, tmp_path: Path) -> None:
    """Error rows are in the named file, which is replaced when the job has ended."""
    _write(Path(options.inputs[0]), [99, *[1] * (ROWS - 1)])
    errors = tmp_path / "errors.jsonl"
    _run(options, errors=str(errors))
    assert [plain_json.loads(line)["row"] for line in errors.read_text().splitlines()] == [0]
    assert "_inferd/errors.jsonl" not in _files(options)


def test_stop_at_the_first_error(options: JobOptions) -> None:
    """The job fails with the row's place, without its part; told to go on, it continues after the parts before."""
    _write(Path(options.inputs[0]), [99 if row == 50 else row % 4 for row in range(ROWS)])
    with pytest.raises(BatchError, match=r"--on-error stop: 1 row has no answer, such as .*rows.parquet, row 50"):
        _run(options, on_error="stop")
    assert [name for name in _files(options) if "part-" in name] == ["part-00000.parquet", "part-00001.parquet"]
    summary = _run(options)
    assert (summary.resumed_rows, summary.rows, summary.errors) == (40, ROWS - 1, 1)


def _with_damaged_file(options: JobOptions, folder: Path) -> JobOptions:
    _write(folder / "a.parquet", [1] * 10)
    (folder / "b.parquet").write_bytes(b"PAR1 this is no file of Parquet")
    _write(folder / "c.parquet", [2] * 10)
    return replace(options, inputs=(f"{folder}/*.parquet",), join=None, row_ids=True)


def test_damaged_file_is_an_error_row(options: JobOptions, tmp_path: Path) -> None:
    """A file that cannot be read is one error row; the files beside it are read."""
    options = _with_damaged_file(options, tmp_path / "data")
    summary = _run(options)
    assert (summary.rows, summary.errors) == (20, 1)
    [error] = _errors(options)
    assert (error["source"], error["row"], error["code"]) == (f"{tmp_path}/data/b.parquet", None, "UNREADABLE")


def test_damaged_file_ends_the_job_if_asked(options: JobOptions, tmp_path: Path) -> None:
    """With --on-error stop the job ends at a file that cannot be read."""
    with pytest.raises(BatchError, match=r"b\.parquet: "):
        _run(_with_damaged_file(options, tmp_path / "data"), on_error="stop")


def test_three_processes_give_what_one_gives(options: JobOptions, tmp_path: Path) -> None:
    """Three shares, in any order, have the same bytes as one run, and the last one completes the job."""
    _run(options)
    shared = replace(options, output=str(tmp_path / "shared"))
    assert [_run(shared, index=index, indexes=3).is_complete for index in (2, 0, 1)] == [False, False, True]
    parts = [name for name in _files(options) if name.startswith("part-")]
    assert _files(shared) == _files(options)
    for name in parts:
        assert (Path(shared.output) / name).read_bytes() == (Path(options.output) / name).read_bytes()


def test_second_run_at_once_is_refused(options: JobOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process works at an output, another one is refused, and changes nothing."""
    refused: list[str] = []

    def open_writer(output_format: OutputFormat) -> OpenWriter:
        with pytest.raises(InUseError, match="is in use by another run") as caught:
            Job(options, RunOptions(overwrite=True), Settings()).run(Event())
        refused.append(str(caught.value))
        return original(output_format)

    original = share.open_writer
    monkeypatch.setattr(share, "open_writer", open_writer)
    assert _run(options).is_complete
    assert len(refused) == 1
    assert len(_answers(options)) == ROWS


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"limit": 7}, [0, 1, 2, 3, 4, 5, 6]),
        ({"limit": 0}, []),
        ({"where": "id >= 95"}, [95, 96, 97, 98, 99]),
        ({"where": "index == 3", "limit": 3}, [3, 7, 11]),
        ({"limit": 10**6, "sample": 1.0}, list(range(ROWS))),
    ],
)
def test_only_wanted_rows_are_run(options: JobOptions, changes: Mapping[str, object], expected: list[int]) -> None:
    """Filters and limits choose rows; an output without rows has its columns too."""
    summary = _run(replace(options, **changes))
    assert list(_answers(options)) == expected
    assert summary.rows == len(expected)
    assert summary.is_complete


def test_sizes_are_chosen_when_none_are_given(options: JobOptions) -> None:
    """Batches, blocks and parts have sizes by measurement; the answers are the same."""
    _run(replace(options, batch_rows=None, look_ahead=None, part_rows=None))
    assert _answers(options) == {row: 10.0 * (row % 4) for row in range(ROWS)}


def test_preview_writes_nothing(options: JobOptions) -> None:
    """A preview has what fills each input, the schema and the answers to the first rows."""
    preview = Job(options, RunOptions(), Settings()).preview(3)
    assert preview.inputs == {"index": "index"}
    assert preview.table.to_pydict() == {"id": [0, 1, 2], "y": [0.0, 10.0, 20.0]}
    assert preview.output_schema.names == ["id", "y"]
    assert not Path(options.output).exists()


def test_metrics_file_has_the_end_of_the_job(options: JobOptions, tmp_path: Path) -> None:
    """The file for the textfile collector has all rows in the end."""
    path = tmp_path / "job.prom"
    _run(options, metrics_file=str(path))
    lines = path.read_text().splitlines()
    assert f'inferd_batch_rows_done{{index="0"}} {float(ROWS)}' in lines
    assert 'inferd_batch_phase{index="0",phase="finishing"} 1.0' in lines


@pytest.mark.parametrize(
    ("changes", "run_options", "text"),
    [
        ({}, {"metrics_file": "/nowhere/job.prom"}, "--metrics-file /nowhere/job.prom: No such file"),
        ({}, {"errors": "errors.csv"}, r"--errors errors.csv: expected a name that ends in .jsonl"),
        ({}, {"overwrite": True, "indexes": 2}, "--overwrite"),
        ({"types": {"id": "string"}}, {}, "--type: expected files of CSV or JSON lines"),
        ({"where": "nothing > 1"}, {}, '--where: there is no column "nothing"'),
        ({"inputs": ("nowhere.parquet",)}, {}, "nowhere.parquet: there is no such file or directory"),
        ({"tokenize": TokenizeOptions(file="nowhere.json")}, {}, "nowhere.json: there is no such file or directory"),
        ({"model": "nowhere"}, {}, "MODEL nowhere"),
        ({"mapping": {"index": "nothing"}}, {}, "nothing"),
        ({"output": "out.csv", "output_format": "jsonl"}, {}, "--output-format jsonl: out.csv is a file of csv"),
    ],
)
def test_wrong_options_are_named(
    options: JobOptions, changes: Mapping[str, object], run_options: Mapping[str, object], text: str
) -> None:
    """What cannot be done is refused with the option and what was expected, and writes nothing."""
    with pytest.raises(BatchError, match=text) as caught:
        _run(replace(options, **changes), **run_options)
    assert isinstance(caught.value, UsageError) or "metrics_file" in run_options
    assert not Path(options.output).exists()


def test_part_that_ends_processes_runs_in_one_of_its_own(options: JobOptions, caplog: pytest.LogCaptureFixture) -> None:
    """The output is that of an undisturbed run."""
    _run(options)
    output = Path(options.output)
    expected = tree(output)
    [work] = output.glob("_inferd")
    for name in ("summary.json", "errors.jsonl"):
        (work / name).unlink(missing_ok=True)
    for part in output.glob("part-*"):
        part.unlink()
    (work / "begun-0.json").write_text('{"1":2,"2":1}')
    summary = _run(options)
    assert (summary.rows, summary.is_complete) == (ROWS, True)
    assert tree(output) == expected
    warnings = [text for text in caplog.messages if "ended abruptly" in text]
    assert [text.partition(" in part ")[2][:2] for text in warnings] == ["2 ", "1 "]
