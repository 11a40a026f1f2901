"""``inferd batch`` on a row that ends the process: run again until it is complete, the row is an error row."""

import json
import signal
import subprocess

import pyarrow.parquet as pq

from tests import onnx_models, onnx_traps
from tests.patience import PATIENCE_S
from tests.server import BIN

#: Parts of 16 rows; the first rows of the first part run before, when the plan is made.
_ROWS, _PART_ROWS, _BAD_ROW = 48, 16, 37


def test_job_completes_without_the_row_that_ends_the_process(tmp_path):
    """Two runs end by SIGFPE with the row's part named, and the third answers all other rows."""
    model = onnx_models.save(onnx_traps.crashes_when_run(), tmp_path / "model.onnx")
    values = [-(2**63) if row == _BAD_ROW else row for row in range(_ROWS)]
    source, output = tmp_path / "rows.jsonl", tmp_path / "answers"
    source.write_text("".join(f'{{"x": {value}}}\n' for value in values))
    command = [BIN / "inferd", "batch", model, source, output, "--join", "x", "--batch-rows", "4"]
    command += ["--batch-bytes", "4096", "--look-ahead", "4", "--part-rows", str(_PART_ROWS), "--in-flight", "1"]

    ends, warnings = [], []
    for _ in range(3):
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        ends.append(ended.returncode)
        lines = map(json.loads, ended.stderr.splitlines())
        warnings += [line["message"] for line in lines if line["event"] == "warning"]

    assert ends == [-signal.SIGFPE, -signal.SIGFPE, 3]
    where = f"part 2 (rows 32 to 47 of {source})"
    # The part before it may be named as well: it may have been unfinished too.
    first, *_, last = warnings
    assert first.startswith("an earlier run ended abruptly in ")
    assert where in first
    assert last.startswith("earlier runs ended abruptly 2 times in ")
    assert where in last
    [error] = map(json.loads, (output / "_inferd" / "errors.jsonl").read_text().splitlines())
    assert (error["row"], error["code"]) == (_BAD_ROW, "RUN_FAILED")
    assert error["message"].endswith("the process was ended by SIGFPE")
    good = [row for row in range(_ROWS) if row != _BAD_ROW]
    assert pq.read_table(output).to_pydict() == {"x": good, "y": [-row for row in good]}
