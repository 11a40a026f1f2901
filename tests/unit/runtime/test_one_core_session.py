"""The second session of a model, whose runs use one core each."""

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.runtime import one_core_session as module
from inferd.runtime import opening
from inferd.runtime import session as sessions
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.one_core_session import useful_runs
from inferd.runtime.runners import RunStop
from tests import onnx_models
from tests.unit.runtime.test_session import opened

_CPU = ("CPUExecutionProvider",)
_X = {"x": np.ones((2, 3), np.float32)}


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A model on two cores, whatever the machine has."""
    for each in (sessions, opening):
        monkeypatch.setattr(each, "usable_cores", lambda: 2)
    return opened(onnx_models.linear(), tmp_path)


def _runs(threads=2, cores=2, providers=_CPU, **settings):
    return useful_runs(ModelSettings.model_validate(settings), providers=providers, threads=threads, cores=cores)


def test_one_run_for_each_of_a_few_cores():
    """A run on all cores has a thread on each."""
    assert [_runs(threads=cores, cores=cores) for cores in (1, 2, 4, 5)] == [0, 2, 4, 0]


@pytest.mark.parametrize(
    "settings",
    [
        {"batching": {"one_core_runs": False}},
        {"batching": {"instances": 2}},
        {"batching": {"instances": {"min": 1, "max": 2}}},
        {"runtime": {"intra_op_threads": 2}},
        {"providers": ("CUDAExecutionProvider", *_CPU)},
        {"threads": 1},
    ],
)
def test_not_where_threads_and_instances_are_set(settings):
    """Nor on a device, nor if a run does not have all cores."""
    assert _runs(**settings) == 0


def test_answers_are_those_of_the_other_session(session):
    """It is timed with several numbers of rows; runs are on all cores before and after."""
    one_core = session.one_core
    expected = session.run(_X, ["y"])[0].tobytes()
    assert not one_core.is_open
    assert one_core.run(_X, ["y"], RunStop())[0].tobytes() == expected
    assert [rows for rows, _ in one_core.open(8)] == [1, 2, 3, 5, 8]
    assert one_core.is_open
    assert one_core.run(_X, ["y"], RunStop())[0].tobytes() == expected
    one_core.release()
    assert not one_core.is_open
    assert one_core.run(_X, ["y"], RunStop())[0].tobytes() == expected


def test_other_answers_are_not_used(session, monkeypatch):
    """Not even if they are only rounded differently."""
    monkeypatch.setattr(session.one_core, "_run_on_all", lambda *_: [session.run(_X, ["y"])[0] * np.float32(1 + 1e-6)])
    assert session.one_core.open(2) == []
    assert not session.one_core.is_open


def test_is_not_opened_without_memory(session, monkeypatch):
    """Several times the size of the weights must be free."""
    monkeypatch.setattr(module, "available_bytes", lambda *_: 4 * session.one_core._nbytes - 1)
    assert session.one_core.open(2) == []
    monkeypatch.setattr(module, "available_bytes", lambda *_: 4 * session.one_core._nbytes)
    assert session.one_core.open(2)


def test_is_not_opened_from_another_file(session, tmp_path):
    """The session that serves has the old one."""
    onnx_models.save(onnx_models.linear(factor=3.0), tmp_path / "model.onnx").touch()
    with pytest.raises(ModelLoadError, match="is not the one any more"):
        session.one_core.open(2)


def test_failure_does_not_quote_inputs(session):
    """As that of a run on all cores."""
    session.one_core.open(2)
    with pytest.raises(RunFailedError) as failure:
        session.one_core.run({"x": np.full((2, 4), 12345, np.float32)}, ["y"], RunStop())
    assert "12345" not in str(failure.value)
    assert failure.value.__cause__ is None


@pytest.mark.parametrize(
    "released_by",
    [
        lambda session: session.reopen(),
        lambda session: session.try_out(),
        lambda session: session.stop_batching("rows were mixed"),
        lambda session: session.close(),
    ],
)
def test_memory_is_released_with_that_of_the_other_session(session, released_by):
    """When it is idle, opened again, or closed; and when requests no longer share batches."""
    session.one_core.open(2)
    assert session.has_spare_memory
    released_by(session)
    assert not session.one_core.is_open


def test_closed_session_is_not_opened(session):
    """The model may have been unloaded meanwhile."""
    session.close()
    assert session.one_core.open(2) == []
    assert not session.one_core.is_open
