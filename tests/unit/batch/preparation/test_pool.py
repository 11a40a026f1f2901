"""Processes that prepare rows: the same tensors as here, and rows that end a process cost themselves only."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from inferd.batch.blocks import BadRows, ColumnTensor
from inferd.batch.errors import BatchError
from inferd.batch.preparation.pool import PreparationPool
from inferd.batch.tensors import tensor_of
from tests.patience import PATIENCE_S


class Lengths:
    """Gives for a text its length, that many times; some texts are bad, raise, or end the process."""

    def __init__(self) -> None:
        self.column = "text"
        self.inputs: tuple[str, ...] = ("x",)
        self.identity: Mapping[str, str] = {}

    def __call__(self, column: pa.Array) -> tuple[dict[str, ColumnTensor], BadRows]:
        rows, bad = [], {}
        for index, text in enumerate(column.to_pylist()):
            match text:
                case "bad":
                    bad[index] = "it is bad"
                case "raise":
                    raise ValueError("no such text")
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "exit":
                    os._exit(3)
            rows.append(None if index in bad else np.full(len(text), len(text)))
        return {"x": tensor_of(rows, np.zeros(0, np.int64))}, bad


class NotStarting(Lengths):
    """Cannot be taken into another process."""

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("not here")


def rows(tensor: ColumnTensor) -> list[list[int]]:
    """Return each row."""
    return [tensor.rows(slice(row, row + 1))[0].tolist() for row in range(len(tensor))]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_prepares_all_columns(workers: int) -> None:
    """Columns are prepared as they are here, slices too, each for its own future."""
    with PreparationPool(Lengths(), workers) as pool:
        column = pa.array(["a", "bb", "bad", "", "a"])
        futures = [pool.submit(column.slice(start)) for start in range(6)]
        for start, future in enumerate(futures):
            tensors, bad = future.result(PATIENCE_S)
            wanted, wanted_bad = Lengths()(column.slice(start))
            assert rows(tensors["x"]) == rows(wanted["x"])
            assert bad == wanted_bad


def test_rows_that_end_the_process_are_bad() -> None:
    """Rows that end a process, or raise, are bad with the reason; their neighbours have what they have alone."""
    with PreparationPool(Lengths(), 1) as pool:
        poisoned = pool.submit(pa.array(["a", "kill", "bb", "raise", "bad", "exit", "ccc"]))
        after = pool.submit(pa.array(["dd"]))
        tensors, bad = poisoned.result(PATIENCE_S)
        assert sorted(bad) == [1, 3, 4, 5]
        assert "was ended by SIGKILL, as it is when memory runs out" in bad[1]
        assert bad[3] == "ValueError: no such text"
        assert bad[4] == "it is bad"
        assert "ended with status 3" in bad[5]
        assert [rows(tensors["x"])[row] for row in (0, 2, 6)] == [[1], [2, 2], [3, 3, 3]]
        tensors, bad = after.result(PATIENCE_S)
        assert (rows(tensors["x"]), bad) == ([[2, 2]], {})


def test_only_poison_has_rank_of_others() -> None:
    """A column of poison only gives tensors that can be selected from."""
    with PreparationPool(Lengths(), 1) as pool:
        tensors, bad = pool.submit(pa.array(["kill"])).result(PATIENCE_S)
    assert list(bad) == [0]
    assert tensors["x"].select(np.zeros(1, np.bool_)).rows(slice(None)).shape == (0, 0)


def test_process_that_cannot_start_ends_job() -> None:
    """If no process can prepare anything, that is no fault of a row."""
    with PreparationPool(NotStarting(), 1) as pool:
        future = pool.submit(pa.array(["a"]))
        with pytest.raises(BatchError, match="cannot start: the process ended with status 1: RuntimeError: not here"):
            future.result(PATIENCE_S)


def test_no_process_is_left() -> None:
    """The processes end with the pool, also while they work, and what is not prepared fails."""
    of_other_tests = {child.pid for child in psutil.Process().children()}
    with PreparationPool(Lengths(), 2) as pool:
        pool.submit(pa.array(["a"])).result(PATIENCE_S)
        futures = [pool.submit(pa.array(["a"] * 20_000)) for _ in range(20)]
        children = [child for child in psutil.Process().children() if child.pid not in of_other_tests]
    assert len(children) >= 1
    assert not any(child.is_running() for child in children)
    assert all(future.done() for future in futures)
    with pytest.raises(BatchError, match="the job has ended"):
        futures[-1].result()


def test_processes_end_when_job_is_killed(tmp_path: Path) -> None:
    """Processes see that the one that started them has ended, even if it could not tell."""
    script = (
        "import os, sys, psutil, pyarrow as pa\n"
        "from inferd.batch.preparation.pool import PreparationPool\n"
        "from tests.unit.batch.preparation.test_pool import Lengths\n"
        "with PreparationPool(Lengths(), 2) as pool:\n"
        "    pool.submit(pa.array(['a'])).result()\n"
        "    print(*(child.pid for child in psutil.Process().children()), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in ended.stdout.split()]
    assert pids
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], PATIENCE_S)
    assert not alive
