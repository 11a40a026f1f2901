"""Failures of other servers' batching, tested through real sockets.

Requests are sent while the model's only worker is busy, so that it is known which of them wait together.
"""

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import BusyModel, add_model, array, busy_model, check, connect, request
from tests.patience import PATIENCE_S
from tests.server import serving

MAX_BATCH_ROWS = 4
#: Longer than anything takes here, to distinguish the batching delay from a slow machine.
MAX_WAIT_MS = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A model that batches and has no default timeout, and one with a batching delay."""
    repository = tmp_path_factory.mktemp("batching")
    one_thread = {"intra_op_threads": 1}
    add_model(
        repository,
        "busy",
        busy_model(),
        {
            "batching": {"max_batch_size": MAX_BATCH_ROWS},
            # All that is sent is admitted, however slow the machine is.
            "queue": {"default_timeout_ms": 0, "max_delay_ms": 0},
            "runtime": one_thread,
        },
    )
    add_model(repository, "holding", busy_model(), {"batching": {"max_wait_ms": MAX_WAIT_MS}, "runtime": one_thread})
    with serving(repository) as running:
        yield running


@pytest.fixture(scope="module")
def busy(server):
    """The model that batches."""
    with connect(server.grpc) as channel:
        yield BusyModel(server, channel, "busy")


@pytest.fixture
def holding(server):
    """A connection for the model with a batching delay."""
    with connect(server.grpc) as channel:
        yield InferenceServiceStub(channel)


def _runs(busy):
    """Return the number of runs by number of rows."""
    return {each.batch_size: each.compute_infer.count for each in busy.statistics().batch_stats}


def test_cancelled_requests_are_dropped_before_run(busy):
    """Every other waiting request is cancelled: these do not run, and the rest share one batch and are right."""
    numbers = range(1, 2 * MAX_BATCH_ROWS + 1)
    with busy.occupied():
        before = busy.statistics().inference_count
        calls = [busy.send(array(number)) for number in numbers]
        busy.wait_queued(len(calls))
        for call in calls[::2]:
            call.cancel()
        busy.wait_queued(MAX_BATCH_ROWS)
    for number, call in list(zip(numbers, calls, strict=True))[1::2]:
        check(call.result(), array(number))
        assert call.result().timing.batch_rows == MAX_BATCH_ROWS
    assert busy.statistics().inference_count - before == MAX_BATCH_ROWS


def test_cancel_during_run_does_not_affect_batch(busy):
    """One of two is cancelled while both run; the other gets its answer, and so does the next."""
    # Longer than it takes to notice that the run has begun, on any machine.
    for run_s in (0.1, 0.4, 1.6, 6.4):
        with busy.occupied():
            leaving, staying = busy.send(array(1, turns=busy.turns(run_s))), busy.send(array(2))
            busy.wait_queued(2)
        busy.wait_queued(0)
        left = leaving.cancel()
        check(staying.result(), array(2))
        assert staying.result().timing.batch_rows == 2
        if left:
            break
    assert left
    busy.call(array(3))


def test_expired_request_is_dropped_from_batch(busy):
    """Deadlines of calls apply in the queue, and so do timeouts of requests although the model has no default."""
    with busy.occupied() as occupying:
        before = busy.statistics().inference_count
        by_call = busy.send(array(1), timeout_s=0.1)
        by_request = busy.send(array(2), timeout={"nanos": 100_000_000})
        patient = busy.send(array(3))
        assert by_request.code() is by_call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "before there was an answer" in by_request.details()
        assert not occupying.done(), "nobody had to wait for the worker to hear of it"
    check(patient.result(), array(3))
    assert patient.result().timing.batch_rows == 1
    assert busy.statistics().inference_count - before == 1


def test_batch_size_counts_rows(busy):
    """Requests of several rows fill batches up to the limit; those larger than a batch are split."""
    rows = [3, 3, 1, 2, 5, 4]
    with busy.occupied():
        before = _runs(busy)
        calls = [busy.send(array(number, rows=count)) for number, count in enumerate(rows, start=1)]
        busy.wait_queued(sum(rows))
    for number, (count, call) in enumerate(zip(rows, calls, strict=True), start=1):
        check(call.result(), array(number, rows=count))
        assert [output.shape[0] for output in call.result().outputs] == [count, count]
    assert calls[2].result().timing.batch_rows == MAX_BATCH_ROWS, "a single row fills up a batch of three"
    runs = {size: count - before.get(size, 0) for size, count in _runs(busy).items()}
    assert max(runs) == MAX_BATCH_ROWS
    assert sum(size * count for size, count in runs.items()) == sum(rows)


def test_other_shapes_in_queue_do_not_close_batch(busy):
    """Two lengths alternate in the queue: each runs in one batch, without padding."""
    lengths = [5, 3] * MAX_BATCH_ROWS
    with busy.occupied():
        before = busy.statistics().execution_count
        calls = [busy.send(array(number, length=length)) for number, length in enumerate(lengths, start=1)]
        busy.wait_queued(len(lengths))
    for number, (length, call) in enumerate(zip(lengths, calls, strict=True), start=1):
        check(call.result(), array(number, length=length))
        assert [list(output.shape) for output in call.result().outputs] == [[1, length]] * 2
        assert call.result().timing.batch_rows == MAX_BATCH_ROWS
    assert busy.statistics().execution_count - before == 2


def test_each_request_gets_its_outputs(busy):
    """One requests both outputs, two request one each, one requests them in the other order; all share a batch."""
    wanted = [["y", "doubled"], ["y"], ["doubled"], ["doubled", "y"]]
    with busy.occupied():
        calls = [busy.send(array(number), outputs=names) for number, names in enumerate(wanted, start=1)]
        busy.wait_queued(len(wanted))
    for number, (names, call) in enumerate(zip(wanted, calls, strict=True), start=1):
        check(call.result(), array(number))
        assert [output.name for output in call.result().outputs] == names
        assert call.result().timing.batch_rows == len(wanted)


def test_single_caller_has_no_batching_delay(holding):
    """One request after the other: each runs at once, however long the maximum delay."""
    for number in range(1, 21):
        response = holding.Infer(request("holding", array(number)), timeout=PATIENCE_S)
        check(response, array(number))
        assert response.timing.queue_us < 1000 * MAX_WAIT_MS / 2


def test_answers_on_stream_belong_to_their_requests(busy):
    """Requests of several lengths and sizes in one message: each answer matches its id, whatever its batch."""
    inputs = {str(n): array(n, rows=1 + n % 3, length=1 + n % 2) for n in range(1, 41)}
    requests = [request("busy", x, request_id=number) for number, x in inputs.items()]
    results = [
        result
        for message in busy.stream(iter([v1.StreamInferRequest(requests=requests)]))
        for result in message.results
    ]
    assert sorted(result.request_id for result in results) == sorted(inputs)
    for result in results:
        check(result.response, inputs[result.request_id])
    assert max(result.response.timing.batch_rows for result in results) == MAX_BATCH_ROWS
