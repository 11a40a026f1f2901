"""``inferd batch`` as a process: signals, a live server, and what is missing."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from inferd import demo
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import BIN, serving

WIDTH = 256
ROWS = 1_200


@pytest.fixture
def slow_job(tmp_path):
    """The arguments of a job of 50 parts, each of which takes a moment."""
    # A row takes milliseconds, and a part so many of them that there are always parts left when a signal comes.
    model = onnx_models.save(onnx_models.slow(steps=400, width=WIDTH), tmp_path / "slow.onnx")
    values = np.arange(ROWS * WIDTH, dtype=np.float32)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)})
    pq.write_table(table, tmp_path / "rows.parquet")
    output = tmp_path / "answers"
    return [str(model), str(tmp_path / "rows.parquet"), str(output), "--batch-rows", "1", "--part-rows", "24"], output


class Running:
    """A job that has begun to run rows."""

    def __init__(self, arguments):
        command = [BIN / "inferd", "batch", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_event(self, event, **fields):
        """Read lines up to the one of ``event`` with ``fields``."""
        for line in self.process.stderr:
            found = json.loads(line)
            if found["event"] == event and fields.items() <= found.items():
                return found
        raise AssertionError(f"the job ended with {self.process.wait()} before {event}")

    def end(self):
        """Wait for the end, and return the exit code and the output."""
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, output


def _run(*arguments, **environment):
    return subprocess.run(
        [BIN / "inferd", "batch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env={**os.environ, **environment},
    )


def test_stops_after_the_part_in_hand(slow_job):
    """The parts that are there are whole, and the same command does the others."""
    arguments, output = slow_job
    job = Running(arguments)
    job.wait_event("progress", phase="running")
    job.process.send_signal(signal.SIGINT)
    job.wait_event("stopping")
    exit_code, printed = job.end()
    assert exit_code == 130
    assert f"{output}, not complete yet" in printed
    done = sorted(output.glob("part-*.parquet"))
    assert all(pq.read_metadata(path).num_rows == 24 for path in done)
    assert not [path for path in output.rglob("*") if "tmp" in path.name]
    summary = json.loads(_run(*arguments, "--json").stdout)
    assert (summary["rows"], summary["is_complete"], summary["total_parts"]) == (ROWS, True, 50)
    assert summary["resumed_rows"] == 24 * len(done)
    assert pq.read_table(output)["y"].combine_chunks().flatten().to_pylist() == list(range(ROWS * WIDTH))


def test_second_signal_ends_at_once(slow_job):
    """The exit code is that of the signal; nothing is lost that was there."""
    arguments, output = slow_job
    job = Running(arguments)
    job.wait_event("progress", phase="running")
    job.process.send_signal(signal.SIGTERM)
    job.wait_event("stopping")
    job.process.send_signal(signal.SIGTERM)
    exit_code, _ = job.end()
    # It may have finished its part between the two.
    assert exit_code in {128 + signal.SIGTERM, 130}
    summary = json.loads(_run(*arguments, "--json").stdout)
    assert (summary["rows"], summary["is_complete"]) == (ROWS, True)
    assert not [path for path in output.rglob("*") if "tmp" in path.name]


def test_server_gives_the_same_answers(tmp_path):
    """Digits, in this process and through a live server."""
    pictures = np.tile(demo.samples().inputs, (30, 1))
    pq.write_table(
        pa.table({"X": pa.FixedSizeListArray.from_arrays(pa.array(pictures.ravel()), 64)}), tmp_path / "rows.parquet"
    )
    with serving() as server:
        there = _run("digits", tmp_path / "rows.parquet", tmp_path / "there.parquet", "--server", server.grpc)
        missing = _run("nope", tmp_path / "rows.parquet", tmp_path / "no.parquet", "--server", server.grpc)
    here = _run("digits", tmp_path / "rows.parquet", tmp_path / "here.parquet")
    assert (there.returncode, here.returncode) == (0, 0), there.stderr + here.stderr
    answers = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("there", "here")]
    assert answers[0]["label"] == answers[1]["label"]
    probabilities = [np.array(table["probabilities"].to_pylist()) for table in answers]
    np.testing.assert_allclose(*probabilities, atol=1e-6)
    assert missing.returncode == 2
    assert missing.stderr.endswith(': there is no model "nope"; its models are digits\n')


def test_missing_packages():
    """The message names the extra."""
    program = "import sys; sys.modules['pyarrow'] = None; from inferd.cli import main; sys.exit(main(['batch', '-h']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "inferd: this needs the package pyarrow, which is not installed; it comes with pip install 'inferd[batch]'\n"
    )
