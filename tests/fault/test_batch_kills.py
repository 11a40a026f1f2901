"""``inferd batch`` is killed at random moments and run again: the output is that of a run that nothing happened to.

`TEST_BATCH_KILLS` is how often; ``make test-batch-kills`` does it a hundred times. What `test_batch_crashes` shows at
each call to the system, this shows of the whole program.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import onnx_models
from tests.disk_faults import tree
from tests.patience import PATIENCE_S
from tests.server import BIN

_KILLS = int(os.environ.get("TEST_BATCH_KILLS", "4"))
_ROWS, _WIDTH, _PART_ROWS = 960, 64, 40
_PARTS = _ROWS // _PART_ROWS
#: Of rows without an answer, so that there are error rows to write.
_BAD_ROW = 123


class _Output:
    """The output of a job at ``path``, seen while the job runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_file = path.suffix != ""
        self._work = path.with_name(f"{path.name}.inferd") if self.is_file else path / "_inferd"
        self._answers = self._work / "data" if self.is_file else path

    @property
    def noted(self) -> list[str]:
        """The parts that are done, as long as the job is not complete."""
        return sorted(path.stem for path in self._work.glob("parts/*.json"))

    @property
    def is_finishing(self) -> bool:
        """Whether what follows all parts has begun."""
        return (self._work / "lock-finish").exists() or self.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether the job is complete."""
        return (self._work / "summary.json").exists()

    def files(self) -> dict[str, tuple[int, int]]:
        """Return the answers of the parts that are done, each with what changes when it is written again."""
        found = {part: (self._answers / f"part-{part}{self.path.suffix or '.parquet'}").stat() for part in self.noted}
        return {part: (stat.st_ino, stat.st_mtime_ns) for part, stat in found.items()}

    def unnoted(self) -> set[str]:
        """Return the parts that are being written, or are written and not noted yet."""
        names = {path.name.partition(".")[0].removeprefix("part-") for path in self._answers.glob("part-*")}
        return names - set(self.noted)


@pytest.fixture(name="source", params=["parquet", "jsonl"])
def _source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Rows with ids, of which one has no vector."""
    vectors = np.random.default_rng(20).random((_ROWS, _WIDTH), np.float32).tolist()
    vectors[_BAD_ROW] = None
    path = tmp_path / f"rows.{request.param}"
    if request.param == "parquet":
        table = pa.table({"id": range(_ROWS), "x": pa.array(vectors, pa.list_(pa.float32(), _WIDTH))})
        pq.write_table(table, path, row_group_size=200)
    else:
        path.write_text("".join(json.dumps({"id": row, "x": vector}) + "\n" for row, vector in enumerate(vectors)))
    return path


def _start(
    model: Path, source: Path, output: Path, errors: int | BinaryIO = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start a job whose plan does not depend on what is measured."""
    options = ["--join", "id", "--batch-rows", "8", "--part-rows", str(_PART_ROWS), "--look-ahead", "32"]
    return subprocess.Popen(
        [BIN / "inferd", "batch", model, source, output, *options],
        stdout=subprocess.DEVNULL,
        stderr=errors,
    )


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Return once it is true, or the process has ended."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and not condition():
        assert time.monotonic() < end, "the job does not go on"
        time.sleep(0.001)


def _run(model: Path, source: Path, output: Path) -> None:
    """Run to the end; one row has no answer."""
    printed = source.with_name("printed")
    with printed.open("wb") as errors:
        code = _start(model, source, output, errors).wait(timeout=PATIENCE_S)
    assert code == 3, printed.read_text()


def test_killed_at_random_moments(tmp_path: Path, source: Path) -> None:
    """The same bytes, nothing else is left, what was noted is never written again, and one part at most is."""
    model = onnx_models.save(onnx_models.slow(steps=60, width=_WIDTH), tmp_path / "slow.onnx")
    # Parts for the one format, and one file for the other.
    name = "out" if source.suffix == ".parquet" else "out.jsonl"
    _run(model, source, tmp_path / "undisturbed" / name)
    expected = tree(tmp_path / "undisturbed")
    chance = random.Random(f"{source.suffix} {_KILLS}")

    kills = 0
    for attempt in range(_KILLS):
        root = tmp_path / f"attempt-{attempt}"
        output = _Output(root / name)
        while kills < -(-_KILLS // 2) and not output.is_complete:
            kills += _kill(_start(model, source, output.path), output, chance)
        _run(model, source, output.path)
        assert tree(root) == expected
        if kills >= -(-_KILLS // 2):
            return


def _kill(process: subprocess.Popen[bytes], output: _Output, chance: random.Random) -> bool:
    """Kill a job at a random moment; return whether it still ran: before or between parts, in one, or in the end."""
    before, unnoted = output.files(), output.unnoted()
    wanted = len(before) + chance.randint(-1, 4)
    if wanted >= len(before):
        _wait_until(lambda: output.is_finishing if wanted >= _PARTS else len(output.noted) > wanted, process)
        time.sleep(chance.random() * 0.02)
    else:
        time.sleep(chance.random())
    is_running = process.poll() is None
    process.kill()
    process.wait()
    if not output.is_complete:
        after = output.files()
        assert {part: after[part] for part in before} == before
        # A part in which the job was killed twice comes last, and what was written of it stays until then.
        assert len(output.unnoted() - unnoted) <= 1
    return is_running
