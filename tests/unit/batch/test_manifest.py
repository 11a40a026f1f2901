"""What a manifest refuses, and what it says about it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd.batch.errors import BatchError, InUseError, UsageError
from inferd.batch.identity import Identity
from inferd.batch.manifest import Manifest, PartNote, manifest_of
from tests.disk_faults import tree
from tests.parts_job import PARTS, content, identity, plan, run_parts, write_part


def _folder(path: Path) -> Manifest:
    return manifest_of(str(path / "out"), ".jsonl", is_file=False)


def _file(path: Path) -> Manifest:
    return manifest_of(str(path / "out.jsonl"), ".jsonl", is_file=True)


def _identity(**changes: object) -> Identity:
    fields: dict[str, object] = {
        "model": {"sha256": "a" * 64},
        "options": {"where": None, "mapping": {"x": "y"}},
        "inputs": {"a.csv": "1", "b.csv": "1"},
        "versions": {"inferd": "1.0"},
    }
    return Identity(**{**fields, **changes})  # type: ignore[arg-type]  # they are of their types


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"sha256": "b"}}, f'model sha256: "{"a" * 59}… before, "b" now'),
        ({"options": {"where": "x > 1", "mapping": {"x": "y"}}}, 'options where: null before, "x > 1" now'),
        ({"options": {"where": None}}, 'options mapping: {"x": "y"} before, null now'),
        ({"inputs": {"a.csv": "2", "b.csv": "1"}}, "a.csv has changed"),
        ({"inputs": {"a.csv": "1"}}, "b.csv is not there any more"),
        ({"inputs": {"a.csv": "1", "b.csv": "1", "c.csv": "1"}}, "c.csv is new"),
        ({"inputs": {"b.csv": "1", "a.csv": "1"}}, "the files are in another order"),
        ({"versions": {"inferd": "1.1"}}, 'versions inferd: "1.0" before, "1.1" now'),
    ],
)
def test_another_job_is_refused(tmp_path: Path, changes: dict[str, object], expected: str) -> None:
    """The error says what has changed, and how to go on."""
    assert _folder(tmp_path).find_or_create(_identity(), plan) == plan()
    assert _folder(tmp_path).find(_identity()) == plan()
    with pytest.raises(BatchError) as raised:
        _folder(tmp_path).find(_identity(**changes))
    text = f"{tmp_path}/out has the answers of another job: {expected}; --overwrite starts over"
    assert str(raised.value) == text


@pytest.mark.parametrize("make", [_folder, _file])
def test_plan_without_answers_is_replaced(tmp_path: Path, make: Callable[[Path], Manifest]) -> None:
    """A corrected command replaces a plan without a part that is done; after the first one, it is another job."""
    manifest = make(tmp_path)
    manifest.find_or_create(identity("wrong"), plan)
    with manifest.part(2) as file:
        file.write(b"killed before its note")
    run_parts(manifest, "right", parts=1)
    assert [path.read_bytes() for path in tmp_path.rglob("part-*")] == [content("right", 0)]
    with pytest.raises(BatchError, match=r'has the answers of another job: model sha256: "right" before, "other" now'):
        run_parts(manifest, "other")
    run_parts(manifest, "right")
    with pytest.raises(BatchError, match="has the answers of another job"):
        run_parts(manifest, "other")


def test_plan_that_is_run_is_not_replaced(tmp_path: Path) -> None:
    """Another process may be at its first part."""
    other = _folder(tmp_path)
    with other.lock(1, 2):
        other.find_or_create(identity("wrong"), plan)
        with pytest.raises(InUseError, match="out is in use"):
            run_parts(_folder(tmp_path), "right", indexes=2)
        assert other.find(identity("wrong")) == plan()
    run_parts(_folder(tmp_path), "right", indexes=2)


def test_few_of_many_differences_are_named(tmp_path: Path) -> None:
    """And the number of the others, without control characters."""
    _folder(tmp_path).find_or_create(_identity(), plan)
    inputs = {f"{name}\x1b.csv": "1" for name in range(20)}
    with pytest.raises(BatchError, match=r"is new; .*; and 17 more; --overwrite starts over") as raised:
        _folder(tmp_path).find(_identity(inputs=inputs))
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"schema": "inferd-batch/1"}'])
def test_damaged_manifest(tmp_path: Path, content: bytes) -> None:
    """It is named, and not taken for another job's."""
    run_parts(_folder(tmp_path))
    (tmp_path / "out/_inferd/manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"out/_inferd/manifest\.json: it is damaged; --overwrite starts over"):
        run_parts(_folder(tmp_path))
    run_parts(_folder(tmp_path), overwrite=True)


@pytest.mark.parametrize(
    ("before", "after"), [('"batch_rows":8', '"batch_rows":9'), ('"a.parquet":"1"', '"a.parquet":"2"')]
)
def test_edited_manifest(tmp_path: Path, before: str, after: str) -> None:
    """A plan that was changed would be run to other bytes, and an identity would be taken for another job's."""
    run_parts(_folder(tmp_path), parts=1)
    path = tmp_path / "out/_inferd/manifest.json"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(
        UsageError, match=r"manifest\.json: it was changed after it was written: its checksum is another"
    ):
        run_parts(_folder(tmp_path))


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b'{"part": 1}'])
def test_damaged_note(tmp_path: Path, damaged: bytes) -> None:
    """Its part is run again."""
    run_parts(_folder(tmp_path), parts=2)
    (tmp_path / "out/_inferd/parts/00001.json").write_bytes(damaged)
    assert list(_folder(tmp_path).done()) == [0]
    run_parts(_folder(tmp_path))
    assert len(_folder(tmp_path).done()) == PARTS


def test_lost_error_rows(tmp_path: Path) -> None:
    """Their part is run again, as one whose answers are lost."""
    run_parts(_folder(tmp_path), parts=2)
    (tmp_path / "out/_inferd/errors/00001.jsonl").unlink()
    assert list(_folder(tmp_path).done()) == [0]
    run_parts(_folder(tmp_path))
    assert len((tmp_path / "out/_inferd/errors.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("damaged", [b"", b"{", b"{}", b'{"parts": [{}]}'])
def test_damaged_summary(tmp_path: Path, damaged: bytes) -> None:
    """It is named: nothing else says which parts are done."""
    run_parts(_folder(tmp_path))
    (tmp_path / "out/_inferd/summary.json").write_bytes(damaged)
    with pytest.raises(UsageError, match=r"out/_inferd/summary\.json is damaged; --overwrite starts over"):
        run_parts(_folder(tmp_path))
    run_parts(_folder(tmp_path), overwrite=True)


def test_manifest_of_another_version(tmp_path: Path) -> None:
    """It is not read."""
    run_parts(_folder(tmp_path))
    (tmp_path / "out/_inferd/manifest.json").write_text(json.dumps({"schema": "inferd-batch/2"}))
    with pytest.raises(UsageError, match=r"expected the schema .*/1\" of this version, got .*/2\""):
        run_parts(_folder(tmp_path))


def test_outputs_of_something_else_are_refused(tmp_path: Path) -> None:
    """A file that is there; a folder with files; one with parts whose manifest is gone. Nothing is written there."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("x")
    (tmp_path / "out.jsonl").write_text("x")
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=r"out has other files, such as notes\.txt; name another directory"):
        run_parts(_folder(tmp_path))
    with pytest.raises(BatchError, match=r"out\.jsonl is there, and not of this job; --overwrite replaces it"):
        run_parts(_file(tmp_path))
    assert tree(tmp_path) == before
    (tmp_path / "out" / "notes.txt").rename(tmp_path / "out" / "part-00000.parquet")
    with pytest.raises(UsageError, match="out has parts of an unknown job; --overwrite replaces them"):
        run_parts(_folder(tmp_path))


def test_overwriting_deletes_nothing_of_something_else(tmp_path: Path) -> None:
    """Beside other files nothing is deleted, parts of a job neither; a single file is replaced."""
    run_parts(_folder(tmp_path))
    for name in ("notes.txt", "part-00009.csv", "part-00000-1b2c.snappy.parquet", ".hidden"):
        (tmp_path / "out" / name).write_text("x")
    before = tree(tmp_path)
    for job in ("this", "other"):
        with pytest.raises(UsageError, match="out has other files, such as notes"):
            run_parts(_folder(tmp_path), job, overwrite=True)
    assert tree(tmp_path) == before
    (tmp_path / "out.jsonl").write_text("x")
    run_parts(_file(tmp_path), overwrite=True)
    assert len((tmp_path / "out.jsonl").read_bytes()) > 1


def test_second_process_is_refused(tmp_path: Path) -> None:
    """Also with --overwrite, or one of another number of processes; another index is not."""
    first = _folder(tmp_path)
    with first.lock(0, 2):
        for index, indexes in ((0, 2), (0, 1), (2, 3)):
            with pytest.raises(InUseError, match="in use"):
                run_parts(_folder(tmp_path), index=index, indexes=indexes)
        with pytest.raises(InUseError, match="out is in use"):
            run_parts(_folder(tmp_path), index=1, indexes=2, overwrite=True)
        run_parts(_folder(tmp_path), index=1, indexes=2)
    run_parts(_folder(tmp_path), index=0, indexes=3)
    assert not list(tmp_path.rglob("lock*"))


def test_stale_locks_of_another_number_are_deleted(tmp_path: Path) -> None:
    """They were left by killed processes."""
    (tmp_path / "out/_inferd").mkdir(parents=True)
    for name in ("lock-0-of-3", "lock-1-of-3", "lock-0-of-1"):
        (tmp_path / "out/_inferd" / name).touch()
    run_parts(_folder(tmp_path))
    assert not list(tmp_path.rglob("lock*"))


@pytest.mark.parametrize("make", [_folder, _file])
def test_answers_that_are_lost(tmp_path: Path, make: object) -> None:
    """Before the job is complete their parts are done again; afterwards the job refuses to say that it is."""
    manifest = make(tmp_path)  # type: ignore[operator]  # a function
    run_parts(manifest, parts=2)
    [first, second] = sorted(tmp_path.rglob("part-*"))
    first.unlink()
    second.write_bytes(b"cut off")
    assert manifest.done() == {}
    run_parts(manifest)
    assert manifest.is_complete
    assert len(manifest.done()) == PARTS
    answers = next(path for path in (tmp_path / "out.jsonl", tmp_path / "out/part-00001.jsonl") if path.exists())
    expected = f"{answers}: expected {answers.stat().st_size:,} bytes as of the complete job"
    answers.write_bytes(b"cut off")
    with pytest.raises(UsageError, match=f"{expected}, got 7; --overwrite starts over"):
        run_parts(manifest)
    answers.unlink()
    with pytest.raises(UsageError, match=f"{expected}, no such file; --overwrite starts over"):
        run_parts(manifest)
    run_parts(manifest, overwrite=True)


def test_error_rows_where_they_are_wanted(tmp_path: Path) -> None:
    """In the order of parts, in the given file; without any, an old file is deleted."""
    manifest = _folder(tmp_path)
    wanted = tmp_path / "errors" / "rows.jsonl"
    manifest.find_or_create(identity("a"), plan)
    for part in (1, 2, 0):
        write_part(manifest, "a", part)
    manifest.finish(manifest.done(), {}, lambda *_: None, str(wanted))
    assert [json.loads(line)["row"] for line in wanted.read_text().splitlines()] == [0, 1]
    assert not (tmp_path / "out/_inferd/errors.jsonl").exists()
    manifest.forget()
    manifest.find_or_create(identity("a"), plan)
    notes = {}
    for part in range(PARTS):
        with manifest.part(part) as file:
            file.write(b"x")
        notes[part] = PartNote(part=part, rows=1, errors=0, nbytes=1)
        manifest.note(notes[part], [])
    manifest.finish(notes, {}, lambda *_: None, str(wanted))
    assert not wanted.exists()


def test_summary_has_totals_and_notes(tmp_path: Path) -> None:
    """For those who read the output later."""
    run_parts(_folder(tmp_path))
    summary = json.loads((tmp_path / "out/_inferd/summary.json").read_text())
    assert summary["rows"] == 1000
    assert [each["part"] for each in summary["parts"]] == list(range(PARTS))
    assert summary["parts"][0] == {"part": 0, "rows": 99, "errors": 1, "nbytes": 4000, "batches": {"8": 13}}


def test_second_finisher_waits_for_nothing(tmp_path: Path) -> None:
    """While one process joins the parts, another one is told that it does."""
    first, second = _file(tmp_path), _file(tmp_path)
    first.find_or_create(identity("a"), plan)
    for part in range(PARTS):
        write_part(first, "a", part)

    def join(*_: object) -> None:
        with pytest.raises(InUseError):
            second.finish(second.done(), {}, join)

    first.finish(first.done(), {}, join)
    assert second.is_complete
    second.finish(second.done(), {}, join)
