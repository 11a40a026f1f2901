"""The files of a job and their columns: what options may name, and what is said of the others."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd.batch.errors import UsageError
from inferd.batch.inputs import open_inputs
from inferd.batch.options import JobOptions


def _options(tmp_path, *, files, **options):
    """Return those of a job over JSON lines with ``files`` of objects."""
    for index, rows in enumerate(files):
        (tmp_path / f"{index}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return JobOptions(model="m", inputs=(str(tmp_path / "*.jsonl"),), output=str(tmp_path / "out" / "a"), **options)


@pytest.mark.parametrize(
    "options",
    [
        {"join": ("late",)},
        {"columns": ("a", "late")},
        {"mapping": {"x": "a,late"}},
        {"where": "late > 1"},
    ],
)
def test_members_of_later_files(tmp_path, options):
    """A member that an option names may be in one of the next files only."""
    job = _options(tmp_path, files=[[{"a": 1}], [{"a": 1, "other": 2}], [{"late": 3}]], **options)
    assert open_inputs(job).columns.schema == pa.schema([("a", pa.int64()), ("late", pa.int64())])


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"join": ("late",)}, "--join"),
        ({"columns": ("late",)}, "--columns"),
        ({"mapping": {"x": "late"}}, "--map x"),
        ({"where": "late > 1"}, "--where"),
    ],
)
def test_members_that_no_looked_at_row_has(tmp_path, options, option):
    """The error says how to name their type, and with it they are columns."""
    job = _options(tmp_path, files=[[{"a": 1}]], **options)
    advice = "if later rows have it, give its type, as in --type late=string"
    with pytest.raises(UsageError) as raised:
        open_inputs(job)
    assert str(raised.value) == f'{option}: there is no column "late", only a; {advice}'
    schema = open_inputs(replace(job, types={"late": "int32"})).columns.schema
    assert schema == pa.schema([("a", pa.int64()), ("late", pa.int32())])


def test_type_of_an_unknown_member_is_refused(tmp_path):
    """It is more likely misspelt than used by nothing."""
    with pytest.raises(UsageError, match='--type: there is no column "aa", only a; did you mean a'):
        open_inputs(_options(tmp_path, files=[[{"a": 1}]], types={"aa": "string"}))


def test_options_of_other_formats(tmp_path):
    """The error says which format there is."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    job = JobOptions(model="m", inputs=(str(tmp_path / "a.parquet"),), output=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="--delimiter: expected files of CSV, got parquet"):
        open_inputs(replace(job, delimiter=";"))
    with pytest.raises(UsageError, match="--type: expected files of CSV or JSON lines, got parquet"):
        open_inputs(replace(job, types={"a": "string"}))
