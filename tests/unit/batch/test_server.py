"""Calls to a server: what is made again, what is an error of rows, and what ends the job."""

import threading

import numpy as np
import pytest

from inferd.batch.errors import BatchError, RowsFailedError
from inferd.batch.server import ServerRunner
from inferd.client.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from inferd.client.results import BatchingInfo, ModelInfo, ModelState, PredictedRun, Result, RunCost, TensorInfo, Timing
from tests.patience import PATIENCE_S


def info(**batching):
    given = {"enabled": True, "max_batch_size": 8, "priority_levels": 3, "verdict": "proven"} | batching
    unused = {"max_wait_s": 0.0, "instances": 1, "max_queue_rows": 100, "backpressure": "reject"}
    tensor = {"datatype": "INT64", "dtype": np.dtype(np.int64), "shape": ("batch",), "batch_axis": 0}
    return ModelInfo(
        name="m",
        version="3",
        state=ModelState.READY,
        reason="",
        inputs=(TensorInfo(name="x", **tensor),),
        outputs=(TensorInfo(name="y", **tensor),),
        batching=BatchingInfo(**unused, **given),
        providers=("CPU",),
        run_cost=RunCost(sizes=(PredictedRun(1, 0.1, 0.2),), error=None, runs=0),
    )


class FakeClient:
    """Answers ``y = 2 * x``, after the errors that it is given; ``wait_for`` holds calls back."""

    def __init__(self, *errors, wait_for=None):
        self.errors = list(errors)
        self.wait_for = wait_for
        self.calls = []
        self.is_called = threading.Event()
        self._lock = threading.Lock()

    def infer(self, model, inputs, **options):
        with self._lock:
            self.calls.append((model, options))
            error = self.errors.pop(0) if self.errors else None
        self.is_called.set()
        if self.wait_for is not None:
            self.wait_for.wait(PATIENCE_S)
        if error is not None:
            raise error
        timing = Timing(queue_s=0.0, run_s=0.0, batch_rows=1)
        return Result(outputs={"y": 2 * inputs["x"]}, model=model, version="3", request_id="", timing=timing)

    def close(self):
        """Do nothing."""


@pytest.fixture
def open_runner():
    """Return a function that makes a runner of a client; they are closed at the end."""
    runners = []

    def opened(client, **options):
        runners.append(ServerRunner(client, info(), **options))
        return runners[-1]

    yield opened
    for runner in runners:
        runner.close()


def ask(runner, *values):
    return runner.submit({"x": np.array(values)}, ("y",)).result(PATIENCE_S)["y"].tolist()


def test_runs_in_the_class_that_gives_way(open_runner):
    """With the version that was found, so that answers of two versions never mix."""
    client = FakeClient()
    assert ask(open_runner(client), 1, 2) == [2, 4]
    [(model, options)] = client.calls
    assert (model, options["version"], options["priority"], options["outputs"]) == ("m", "3", 4, ("y",))


def test_server_without_priorities():
    """Gets the model's default."""
    client = FakeClient()
    runner = ServerRunner(client, info(priority_levels=0))
    ask(runner, 1)
    runner.close()
    assert client.calls[0][1]["priority"] == 0


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full", reason="QUEUE_FULL", retry_after_s=0.0),
        Unavailable("loading", reason="MODEL_LOADING", retry_after_s=0.0),
        Unavailable("connection lost", retry_after_s=0.0),
        DeadlineExceeded("waited", reason="DEADLINE_EXCEEDED", retry_after_s=0.0),
        Internal("Received RST_STREAM with error code 2", retry_after_s=0.0),
    ],
)
def test_is_asked_again(open_runner, error):
    """Until there is an answer."""
    client = FakeClient(error, error)
    assert ask(open_runner(client), 1) == [2]
    assert len(client.calls) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("too long", reason="INVALID_INPUT"), "INVALID_INPUT"),
        (Overloaded("too large", reason="MESSAGE_TOO_LARGE"), "RUN_FAILED"),
        (Overloaded("SERVER: Received message larger than max (9 vs. 8)"), "RUN_FAILED"),
        (Overloaded("no memory", reason="OUT_OF_MEMORY"), "RUN_FAILED"),
        (DeadlineExceeded("endless", reason="RUN_TOO_LONG"), "RUN_FAILED"),
        (Internal("failed", reason="INFERENCE_FAILED"), "RUN_FAILED"),
    ],
)
def test_rows_are_to_blame(open_runner, error, code):
    """They are not asked for again; the next ones are."""
    client = FakeClient(error)
    runner = open_runner(client)
    with pytest.raises(RowsFailedError) as caught:
        ask(runner, 1)
    assert (caught.value.code, caught.value.message) == (code, error.message)
    assert ask(runner, 2) == [4]


@pytest.mark.parametrize(
    "error", [NotFound("gone"), PermissionDenied("no"), Internal("load", reason="MODEL_LOAD_FAILED")]
)
def test_server_that_refuses_ends_the_job(open_runner, error):
    """No row is lost: started again, it continues."""
    with pytest.raises(BatchError, match="refuses"):
        ask(open_runner(FakeClient(error)), 1)


def test_gives_up_without_any_answer(open_runner):
    """After ten minutes in which nothing was answered, counted from when this was asked."""
    now = iter(range(10_000, 100_000, 100))
    client = FakeClient(*[Unavailable("down", retry_after_s=0.0)] * 50)
    runner = open_runner(client, clock=lambda: float(next(now)))
    with pytest.raises(BatchError, match=r"no request was answered for \d+ s: down"):
        ask(runner, 1)
    assert 1 < len(client.calls) < 8


def test_refused_calls_do_not_block_new_ones(open_runner):
    """All threads may be busy with calls that are made again."""
    client = FakeClient(*[Overloaded("full", retry_after_s=0.0)] * 30)
    runner = open_runner(client, in_flight=4)
    answers = [runner.submit({"x": np.array([row])}, ("y",)) for row in range(20)]
    assert [each.result(PATIENCE_S)["y"].tolist() for each in answers] == [[2 * row] for row in range(20)]
    assert len(client.calls) == 50


def test_no_more_are_in_flight_than_allowed(open_runner):
    """The next one waits, so memory is bounded."""
    release = threading.Event()
    runner = open_runner(FakeClient(wait_for=release), in_flight=2)
    first = [runner.submit({"x": np.array([row])}, ("y",)) for row in range(2)]
    third = threading.Thread(target=ask, args=(runner, 3))
    third.start()
    assert third.is_alive()
    assert not any(each.done() for each in first)
    release.set()
    third.join(PATIENCE_S)
    assert not third.is_alive()


def test_closing_ends_what_waits():
    """A call that would be made again is not."""
    client = FakeClient(Unavailable("down", retry_after_s=3600.0))
    runner = ServerRunner(client, info())
    answer = runner.submit({"x": np.array([1])}, ("y",))
    assert client.is_called.wait(PATIENCE_S)
    runner.close()
    with pytest.raises(BatchError):
        answer.result(PATIENCE_S)


def test_says_what_sizing_needs(open_runner):
    """Bounds and costs of the server."""
    runner = open_runner(FakeClient())
    assert (runner.max_rows, runner.run_costs, runner.signature.batchable) == (8, {1: 0.1}, True)
    assert runner.identity == {"name": "m", "version": "3", "providers": ["CPU"]}
