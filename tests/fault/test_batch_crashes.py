"""The output of a job whose process or machine dies, or whose disk fails, at any call that it makes to the system.

Where a run is long or repeated, every fourth call is tried; ``make test-batch-crashes`` tries all (`TEST_BATCH_STEP`).
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from inferd.batch.errors import BatchError, InUseError
from inferd.batch.manifest import Manifest, manifest_of
from inferd.batch.output_folder import LocalFolder
from tests.disk_faults import Disk, Killed, tree
from tests.parts_job import PARTS, run_parts

#: From one call that is tried to the next. A part has 15, so that other ones of each part are tried.
_STEP = int(os.environ.get("TEST_BATCH_STEP", "4"))

#: Outputs, each with the folder whose changes of names are lost with the power: none, all, or one.
_LOSSES = [
    ("out", ""),
    ("out", "*"),
    ("out", "out"),
    ("out", "out/_inferd"),
    ("out", "out/_inferd/parts"),
    ("out.jsonl", "."),
    ("out.jsonl", "out.jsonl.inferd/data"),
    ("out.jsonl", "out.jsonl.inferd/errors"),
]


def _run(output: Path, job: str = "a", **options: Any) -> None:
    run_parts(manifest_of(str(output), ".jsonl", is_file=output.suffix == ".jsonl"), job, **options)


def _undisturbed(folder: Path, name: str, job: str = "a") -> dict[str, bytes | None]:
    """Return the files of a job that nothing happened to."""
    (folder / "undisturbed").mkdir(parents=True)
    with Disk(folder / "undisturbed").running():
        _run(folder / "undisturbed" / name, job)
    return tree(folder / "undisturbed")


def _attempts(
    folder: Path, run: Callable[[Path], object], *, first: int = 0, step: int = _STEP, error: int | None = None
) -> Iterator[tuple[Path, Disk]]:
    """Yield a folder of a run that failed at its call ``first``, one ``step`` later, and so on until the end."""
    for at in range(first, first + 1000, step):
        root = folder / f"at-{at}"
        root.mkdir(parents=True)
        disk = Disk(root, at, error)
        with suppress(Killed), disk.running():
            run(root)
        if not disk.failed:
            assert at > first + 20, "few calls were counted"
            return
        yield root, disk
    pytest.fail("it never ends")


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_killed_at_any_call(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on to the same files, nothing else is left, and at most one part is written twice."""
    written = []
    monkeypatch.setattr(Manifest, "part", lambda self, part, do=Manifest.part: written.append(part) or do(self, part))
    expected = _undisturbed(tmp_path, name)
    for root, disk in _attempts(tmp_path, lambda root: written.clear() or _run(root / name), step=1):
        with Disk(root).running():
            _run(root / name)
        assert tree(root) == expected, disk.failed
        assert set(written) == set(range(PARTS)), disk.failed
        assert len(written) <= PARTS + 1, disk.failed


@pytest.mark.parametrize(("name", "undone"), _LOSSES)
def test_power_is_lost_at_any_call(tmp_path: Path, name: str, undone: str) -> None:
    """Neither a file without its content nor a note without its part is on the disk, so it goes on to the same."""
    expected = _undisturbed(tmp_path, name)
    for root, disk in _attempts(tmp_path, lambda root: _run(root / name)):
        disk.lose_power(undone=undone)
        with Disk(root).running():
            _run(root / name)
        assert tree(root) == expected, disk.failed


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_killed_twice(tmp_path: Path, name: str) -> None:
    """A run that goes on may be killed as well."""
    expected = _undisturbed(tmp_path, name)
    for at in (5, 30, 55):
        for root, disk in _attempts(tmp_path / f"first-{at}", lambda root, at=at: _twice(root / name, at)):
            with Disk(root).running():
                _run(root / name)
            assert tree(root) == expected, disk.failed


def _twice(output: Path, at: int) -> None:
    with suppress(Killed), Disk(output.parent, at).running():
        _run(output)
    _run(output)


@pytest.mark.parametrize("name", ["out", "out.jsonl"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_error_at_any_call(tmp_path: Path, name: str, error: int) -> None:
    """The run fails with what to do, leaves no temporary file, and goes on when it is run again."""
    expected = _undisturbed(tmp_path, name)
    failures = []

    def run(root: Path) -> None:
        try:
            _run(root / name)
        except BatchError as failure:
            failures.append(str(failure))

    for root, disk in _attempts(tmp_path, run, step=1, error=error):
        if not disk.failed.startswith("unlink"):
            assert not [path for path in tree(root) if path.endswith(".tmp")], disk.failed
        with Disk(root).running():
            _run(root / name)
        assert tree(root) == expected, disk.failed
    text = "the disk is full; free some space and run it again: it continues" if error == errno.ENOSPC else "EIO"
    assert failures
    assert all(text in failure for failure in failures), failures


@pytest.mark.parametrize(
    ("name", "parts", "undone"),
    [
        ("out", PARTS, None),
        ("out", PARTS, "out/_inferd"),
        ("out", PARTS - 1, "out/_inferd/parts"),
        ("out.jsonl", PARTS, "out.jsonl.inferd"),
    ],
)
def test_overwriting_ends_at_any_call(tmp_path: Path, name: str, parts: int, undone: str | None) -> None:
    """Either job, run without --overwrite, then has its own answers or refuses; never those of the other."""

    def run(root: Path) -> None:
        _run(root / name, "a", parts=parts)
        _run(root / name, "b", overwrite=True)

    expected = {job: _undisturbed(tmp_path / job, name, job) for job in ("a", "b")}
    before = Disk(tmp_path)
    with before.running():
        _run(tmp_path / "before" / name, "a", parts=parts)
    for root, disk in _attempts(tmp_path, run, first=before.calls):
        if undone is not None:
            disk.lose_power(undone=undone)
        for job, overwrite in (("a", False), ("b", False), ("b", True)):
            copy = tmp_path / f"{root.name}-{job}-{overwrite}"
            shutil.copytree(root, copy)
            try:
                with Disk(copy).running():
                    _run(copy / name, job, overwrite=overwrite)
            except BatchError:
                assert not overwrite, disk.failed
            else:
                assert tree(copy) == expected[job], disk.failed


def test_processes_that_share_the_parts(tmp_path: Path) -> None:
    """Each killed at any call, in turn: the files are those of one process."""
    expected = _undisturbed(tmp_path, "out")
    for at in range(1000):
        root = tmp_path / f"at-{at}"
        root.mkdir()
        disks = [Disk(root, at), Disk(root, at)]
        for index, disk in enumerate(disks):
            with suppress(Killed), disk.running():
                _run(root / "out", index=index, indexes=2)
        for index in range(2):
            with Disk(root).running():
                _run(root / "out", index=index, indexes=2)
        assert tree(root) == expected, [disk.failed for disk in disks]
        if not any(disk.failed for disk in disks):
            return


def test_output_is_deleted_while_it_is_written(tmp_path: Path) -> None:
    """The run ends, and touches nothing of another one that has begun there meanwhile."""
    folder, other = (LocalFolder(str(tmp_path / "out")) for _ in range(2))
    with ExitStack() as stack:
        stack.enter_context(folder.lock("_inferd/lock"))
        part = stack.enter_context(ExitStack())
        part.enter_context(folder.create("part")).write(b"of the first run")
        shutil.rmtree(tmp_path / "out")
        stack.enter_context(other.lock("_inferd/lock"))
        with pytest.raises(InUseError, match="out was deleted while"):
            part.close()
        with other.create("part") as file:
            with pytest.raises(InUseError, match="out was deleted while"):
                part.enter_context(folder.create("part"))
            file.write(b"of the second run")
    assert tree(tmp_path / "out") == {"part": b"of the second run"}
