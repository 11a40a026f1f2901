"""``inferd batch``: options, exit codes and what it prints, with a job that does nothing."""

import json
import logging
from dataclasses import replace
from io import StringIO
from threading import Event

import pyarrow as pa
import pytest
from rich.console import Console

from inferd.batch.errors import BatchError, RowError, UsageError
from inferd.batch.job import Preview
from inferd.batch.progress import ProgressSnapshot, Summary
from inferd.cli import batch
from inferd.cli.batch_output import JobView, duration

SUMMARY = Summary(
    rows=9_998,
    errors=2,
    resumed_rows=4_000,
    resumed_errors=0,
    parts=10,
    total_parts=10,
    elapsed_s=12.0,
    run_s=10.0,
    rows_per_s=600.0,
    busy_share=0.97,
    batches={64: 93, 48: 1, 16: 2, 1: 3},
    has_finished=True,
    is_complete=True,
    errors_file="answers/_inferd/errors.jsonl",
)
SEEN = ProgressSnapshot(
    phase="running",
    rows=5_000,
    total_rows=10_000,
    errors=2,
    parts=5,
    total_parts=10,
    elapsed_s=6.0,
    rows_per_s=600.0,
    left_s=8.3,
)


class FakeJob:
    """Ends as it is told. Class attributes, as the command makes it."""

    outcome = SUMMARY
    preview_of = None
    made_with = ()

    def __init__(self, *arguments):
        FakeJob.made_with = arguments

    def run(self, stop):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def preview(self, rows):
        return self.preview_of


@pytest.fixture
def job(monkeypatch):
    """A fake job in place of real ones; no signal handlers."""
    monkeypatch.setattr(batch, "Job", FakeJob)
    monkeypatch.setattr(batch, "install_signal_handlers", lambda *_, **__: None)
    monkeypatch.setattr(FakeJob, "outcome", SUMMARY)
    return FakeJob


def test_options(inferd, job):
    """Each option is where the job has it."""
    arguments = "--map X=pixels --output label=digit --join id,name --row-ids --columns id,pixels --type id=string"
    arguments += " --where a>1 --limit 5 --sample 0.5 --seed 3 --input-format csv --output-format jsonl"
    arguments += " --tokenize t.json,max_length=8 --image size=32 --batch-rows 8 --batch-bytes 9 --look-ahead 10"
    arguments += " --part-rows 11 --errors e.jsonl --on-error 3 --workers 0 --in-flight 2 --index 1 --indexes 4"
    arguments += " --metrics-file m.prom --set batching.max_batch_size=8"
    inferd("batch", "m.onnx", "a.csv", "b.csv", "out/", *arguments.split())
    options, run_options, settings, endpoint, _ = job.made_with
    assert (options.model, options.inputs, options.output) == ("m.onnx", ("a.csv", "b.csv"), "out/")
    assert (options.mapping, options.outputs, options.join) == ({"X": "pixels"}, {"label": "digit"}, ("id", "name"))
    assert (options.row_ids, options.columns, options.types) == (True, ("id", "pixels"), {"id": "string"})
    assert (options.where, options.limit, options.sample, options.seed) == ("a>1", 5, 0.5, 3)
    assert (options.input_format, options.output_format) == ("csv", "jsonl")
    assert (options.tokenize.max_length, options.image.size) == (8, (32, 32))
    sizes = (options.batch_rows, options.batch_bytes, options.look_ahead, options.part_rows)
    assert sizes == (8, 9, 10, 11)
    assert (run_options.errors, run_options.on_error, run_options.workers) == ("e.jsonl", 3, 0)
    assert (run_options.in_flight, run_options.index, run_options.indexes) == (2, 1, 4)
    assert (run_options.metrics_file, run_options.overwrite) == ("m.prom", False)
    assert (settings.batching.max_batch_size, endpoint) == (8, None)


def test_server(inferd, job, monkeypatch):
    """The job gets the endpoint, with the token of the environment."""
    monkeypatch.setenv("INFERD_TOKEN", "secret")
    inferd("batch", "m", "a.csv", "out/", "--server", "127.0.0.1:8001", "--model-version", "3")
    options, _, _, endpoint, _ = job.made_with
    assert (endpoint.address, endpoint.token, options.version) == ("127.0.0.1:8001", "secret", "3")


def test_errors_keep_their_lines(inferd, job, monkeypatch):
    """An error in an expression points into it; other control characters are escaped."""
    monkeypatch.setattr(job, "outcome", UsageError("--where, character 3: expected a name\n    a \x1b\n      ^"))
    result = inferd("batch", "digits", "a.csv", "out/")
    assert result.err == "inferd: --where, character 3: expected a name\n    a \\x1b\n      ^\n"


@pytest.mark.parametrize(
    ("outcome", "arguments", "exit_code"),
    [
        (replace(SUMMARY, errors=0), [], 0),
        (SUMMARY, [], 3),
        (SUMMARY, ["--accept-errors"], 0),
        (replace(SUMMARY, has_finished=False, is_complete=False), [], 130),
        (BatchError("no space"), [], 1),
        (UsageError("--map Z: no such input"), [], 2),
    ],
)
def test_exit_codes(inferd, job, monkeypatch, outcome, arguments, exit_code):
    """Each outcome has one; errors are one line on stderr."""
    monkeypatch.setattr(job, "outcome", outcome)
    result = inferd("batch", "digits", "a.csv", "out/", *arguments)
    assert result.exit_code == exit_code
    assert result.err == (f"inferd: {outcome}\n" if isinstance(outcome, Exception) else "")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--map", "X"], '--map: expected INPUT=COLUMN, got "X"'),
        (["--index", "3", "--indexes", "3"], "--index: expected 0 to 2 for --indexes 3, got 3"),
        (["--model-version", "2"], "--model-version: expected with --server only"),
        (["--server", "http://127.0.0.1:8000"], "expected HOST:PORT or unix:PATH, got a URL"),
        (["--image", "size=big"], "--image size: expected a number of pixels"),
        (["--set", "batching.max_batch_size=0"], "batching.max_batch_size"),
    ],
)
def test_wrong_arguments(inferd, job, arguments, text):
    """They are refused before there is a job."""
    result = inferd("batch", "digits", "a.csv", "out/", *arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert text in result.err


def test_summary(inferd, job):
    """Rows, those of earlier runs, errors and where they are, rates and batches."""
    lines = dict(line.split(maxsplit=1) for line in inferd("batch", "digits", "a.csv", "answers").out.splitlines())
    assert lines["output"] == "answers"
    assert lines["rows"] == "9,998 with an answer, 2 without; 4,000 of them by earlier runs"
    assert lines["errors"] == "answers/_inferd/errors.jsonl"
    assert lines["rate"] == "600 rows/s; the model ran 97% of that time"
    assert lines["batches"] == "93 of 64 rows, 3 of 1 row, 2 of 16 rows, 1 of other sizes"


def test_summary_of_a_part(inferd, job, monkeypatch):
    """A job that is not complete says so, and that of another run has no rate."""
    monkeypatch.setattr(job, "outcome", replace(SUMMARY, batches={}, is_complete=False))
    out = inferd("batch", "digits", "a.csv", "answers").out
    assert out.splitlines()[0].endswith("answers, not complete yet")
    assert "rows/s" not in out


def test_json_summary(inferd, job):
    """One object with every field."""
    found = json.loads(inferd("batch", "digits", "a.csv", "answers", "--json").out)
    assert (found["rows"], found["errors"], found["batches"]["64"]) == (9_998, 2, 93)


def test_preview(inferd, job, monkeypatch):
    """The mapping, the schema and rows; as JSON with strict numbers."""
    table = pa.record_batch({"label": pa.array([3]), "p": pa.array([[0.5, float("nan")]])})
    error = RowError("a.csv", 1, "INVALID_INPUT", "expected [64] in each row, got 63")
    preview = Preview(files=2, inputs={"X": "pixels"}, output_schema=table.schema, table=table, errors=[error])
    monkeypatch.setattr(job, "preview_of", preview)
    text = inferd("batch", "digits", "a.csv", "answers", "--dry-run").out
    assert "label: 3, p: [0.5, " in text
    assert "a.csv, row 1: INVALID_INPUT: expected [64]" in text
    found = json.loads(inferd("batch", "digits", "a.csv", "answers", "--dry-run", "--json").out)
    assert found["rows"] == [{"label": 3, "p": [0.5, "NaN"]}]
    assert (found["inputs"], found["columns"]["label"]) == ({"X": "pixels"}, "int64")


def test_view_without_a_terminal(capsys):
    """A line for each phase, and then one every ten seconds."""
    with JobView(Console(file=StringIO())) as view:
        for elapsed_s in (6.0, 7.0, 15.9, 16.0):
            view.show(replace(SEEN, elapsed_s=elapsed_s))
        view.show(replace(SEEN, phase="finishing", elapsed_s=17.0))
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["phase"], line["elapsed_s"]) for line in lines] == [
        ("running", 6.0),
        ("running", 16.0),
        ("finishing", 17.0),
    ]
    assert (lines[0]["event"], lines[0]["rows"], lines[0]["left_s"]) == ("progress", 5_000, 8.3)


def test_view_on_a_terminal():
    """Phase, rows, rate, errors and time left; and the cursor is not hidden."""
    console = Console(file=StringIO(), force_terminal=True, width=120)
    with JobView(console) as view:
        view.show(SEEN)
    text = console.file.getvalue()
    assert "5,000 of 10,000 rows" in text
    assert "600/s  2 errors  8.3 s left" in text
    assert text.rindex("\x1b[?25h") > text.index("\x1b[?25l")


def test_stop_and_warnings(capsys):
    """A stop is set and explained; what a server would log as a warning is shown."""
    stop = Event()
    with JobView(Console(file=StringIO())) as view:
        logging.getLogger("inferd.runtime").warning("the model is not batched")
        view.stop(stop)
    assert stop.is_set()
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in events] == ["warning", "stopping"]
    assert events[0]["message"] == "the model is not batched"


@pytest.mark.parametrize(("seconds", "text"), [(4.25, "4.2 s"), (187, "3:07 min"), (3_900, "1:05 h")])
def test_duration(seconds, text):
    """Seconds, minutes and hours."""
    assert duration(seconds) == text
