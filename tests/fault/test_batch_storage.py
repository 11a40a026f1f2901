"""``inferd batch`` while its disk is full, its storage refuses, or another run writes to the same output.

`test_batch_crashes` and `test_batch_object_store` have a failure at each call; this has a few, of the whole program.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3fs import S3FileSystem

from tests import onnx_models
from tests.disk_faults import tree
from tests.patience import PATIENCE_S, eventually
from tests.s3 import S3Server, s3_bucket
from tests.server import BIN

_ROWS, _WIDTH, _PART_ROWS = 200, 16, 40


@pytest.fixture(name="job", scope="module")
def _job(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a job of five parts, up to its output."""
    folder = tmp_path_factory.mktemp("job")
    vectors = np.random.default_rng(20).random((_ROWS, _WIDTH), np.float32)
    vectors[7] = np.nan
    rows = pa.array([None if np.isnan(row).any() else row.tolist() for row in vectors], pa.list_(pa.float32(), _WIDTH))
    pq.write_table(pa.table({"x": rows}), folder / "rows.parquet")
    model = onnx_models.save(onnx_models.slow(steps=100, width=_WIDTH), folder / "slow.onnx")
    options = ["--batch-rows", "1", "--part-rows", str(_PART_ROWS), "--row-ids"]
    return [*options, str(model), str(folder / "rows.parquet")]


@pytest.fixture(name="undisturbed", scope="module")
def _undisturbed(tmp_path_factory: pytest.TempPathFactory, job: list[str]) -> dict[str, dict[str, bytes | None]]:
    """The files of outputs with these names when nothing happens."""
    found = {}
    for name in ("out", "out.jsonl"):
        folder = tmp_path_factory.mktemp("undisturbed")
        code, error = _run(*job, str(folder / name))
        assert code == 3, error
        found[name] = tree(folder)
    return found


#: Runs the command on a disk that is full once it has to take the file that the first argument names.
_FULL_DISK = """
import errno, os, sys
path, fsync = sys.argv.pop(1), os.fsync
def full(descriptor):
    name = os.readlink(f"/proc/self/fd/{descriptor}")
    if os.path.dirname(name) == os.path.dirname(path) and name.startswith(path + ".") and name.endswith(".tmp"):
        raise OSError(errno.ENOSPC, "No space left on device")
    fsync(descriptor)
os.fsync = full
from inferd.cli import main
sys.exit(main())
"""


def _run(*arguments: str, program: Sequence[str | Path] = (BIN / "inferd",)) -> tuple[int, str]:
    """Return the exit code, and the error without the lines about progress."""
    done = subprocess.run(
        [*program, "batch", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, "".join(line for line in done.stderr.splitlines() if not line.startswith("{"))


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("out", ["_inferd/errors/00000.jsonl", "part-00002.parquet"]),
        ("out.jsonl", [".inferd/manifest.json", ""]),
    ],
)
def test_full_disk(
    tmp_path: Path, job: list[str], undisturbed: dict[str, dict[str, bytes | None]], name: str, files: list[str]
) -> None:
    """The job fails with the reason and what to do, and leaves no temporary file; run again, it goes on."""
    output = tmp_path / "full" / name
    for file in files:
        path = f"{output}{file}" if name.endswith(".jsonl") else f"{output}/{file}"
        code, error = _run(*job, str(output), program=[sys.executable, "-c", _FULL_DISK, path])
        assert code == 1, error
        assert f"{path}: the disk is full; free some space and run it again: it continues" in error
        assert not list(output.parent.rglob("*.tmp"))
        assert not Path(path).exists()
    assert _run(*job, str(output))[0] == 3
    assert tree(output.parent) == undisturbed[name]


def test_second_run_at_once(tmp_path: Path, job: list[str], undisturbed: dict[str, dict[str, bytes | None]]) -> None:
    """It is refused; the first one ends as if alone."""
    output = tmp_path / "twice" / "out"
    first = subprocess.Popen(
        [BIN / "inferd", "batch", *job, output], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        eventually((output / "_inferd" / "manifest.json").exists, "the manifest")
        # It is not asked again before the second one has ended.
        first.send_signal(signal.SIGSTOP)
        for more in ([], ["--overwrite"], ["--index", "0", "--indexes", "3"]):
            code, error = _run(*more, *job, str(output))
            assert code == 1
            assert "in use" in error
        first.send_signal(signal.SIGCONT)
        assert first.wait(timeout=PATIENCE_S) == 3
    finally:
        first.kill()
        first.wait()
    assert tree(tmp_path / "twice") == undisturbed["out"]


@pytest.fixture(name="s3")
def _s3(tmp_path: Path) -> Iterator[S3Server]:
    folder = tmp_path / "s3"
    folder.mkdir()
    with s3_bucket(folder) as server:
        yield server


def _objects(prefix: str) -> dict[str, bytes]:
    system = S3FileSystem(use_listings_cache=False)
    return {path.removeprefix(prefix): system.cat_file(path) for path in system.find(prefix)}


def test_storage_refuses(s3: S3Server, job: list[str], undisturbed: dict[str, dict[str, bytes | None]]) -> None:
    """The job fails with the reason; once it may write, it goes on to objects with the content of files."""
    for name in ("manifest", "part-00003"):
        with s3.refuse(name):
            code, error = _run(*job, "s3://bucket/refused/out")
        assert code == 1
        assert name in error
        assert error.endswith("; run it again when that is fixed: it continues")
    assert _run(*job, "s3://bucket/refused/out")[0] == 3
    files = {f"/{name}": content for name, content in undisturbed["out"].items() if content is not None}
    assert len(files) == 8, files.keys()
    assert _objects("bucket/refused") == files
