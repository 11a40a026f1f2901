"""Runs in a process of their own: what ends it costs the rows that do, and no others."""

import os
import signal
from functools import partial

import numpy as np
import pytest

from inferd.batch.blocks import BatchLimits
from inferd.batch.errors import BatchError
from inferd.batch.isolated import IsolatedRunner
from inferd.batch.running import BlockRunner
from tests.unit.batch.fake_runner import FakeRunner, signature
from tests.unit.batch.test_running import BINDING, SOURCES, block

#: Ends the process, and fails.
_CRASHING, _POISON = 5, 3


class _Crashing(FakeRunner):
    """Ends its process when it runs a certain value."""

    def submit(self, inputs, outputs):
        if (inputs["x"] == _CRASHING).any():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().submit(inputs, outputs)


def _open():
    return _Crashing(poison=frozenset({_POISON}))


def _fail(text):
    raise BatchError(text)


def test_row_that_ends_the_process_is_an_error():
    """As is one that fails there; the others have their answers."""
    runner = IsolatedRunner(signature(), _open)
    [finished] = BlockRunner(runner, BINDING, BatchLimits(8, 10**6), SOURCES).run(iter([block(*range(8))]))
    runner.close()
    assert finished.table.column(0).to_pylist() == [2 * row for row in range(8) if row not in {_CRASHING, _POISON}]
    assert [(each.row, each.code, each.message) for each in finished.errors] == [
        (30, "RUN_FAILED", "it does not like 3"),
        (50, "RUN_FAILED", "run in a process of its own: the process was ended by SIGSEGV"),
    ]


def test_process_that_cannot_start_ends_the_job():
    """Its rows are no error rows."""
    runner = IsolatedRunner(signature(), partial(_fail, "no memory for the model"))
    with pytest.raises(BatchError, match=r"a process that runs rows cannot start: .*: no memory for the model"):
        runner.submit({"x": np.arange(2)}, ("y",)).result()


def test_closed_runner_ends_the_job():
    """What it runs, and what comes later, are no error rows."""
    runner = IsolatedRunner(signature(), _open)
    assert runner.submit({"x": np.arange(2)}, ("y",)).result()["y"].tolist() == [0, 2]
    runner.close()
    with pytest.raises(BatchError, match="the job has ended"):
        runner.submit({"x": np.arange(2)}, ("y",)).result()
