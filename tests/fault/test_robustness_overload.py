"""Overload: limits are exact, goodput stays near the capacity, and nothing accumulates.

The models run in one thread, about 20 ms for a batch of four rows, so that the clients in this process hardly compete.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tests.load import MIB, BusyModel, add_model, array, busy_model, check, connect, cpu_s
from tests.server import serving

QUEUE_ROWS = 32
QUEUE_BYTES = 8 * MIB
MAX_BATCH_ROWS = 4
RUN_S = 0.02
ANSWERS = 60
#: A float for each element: a quarter of a mebibyte.
LARGE_LENGTH = MIB // 16


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two models with short queues, in a server that reports overload as Triton does."""
    repository = tmp_path_factory.mktemp("overload")
    settings = {
        "queue": {"max_rows": QUEUE_ROWS, "max_bytes": QUEUE_BYTES, "max_delay_ms": 0},
        "batching": {"max_batch_size": MAX_BATCH_ROWS},
        "runtime": {"intra_op_threads": 1},
    }
    add_model(repository, "batched", busy_model(), settings)
    add_model(repository, "unbatched", busy_model(), settings | {"batching": {"enabled": False}})
    with serving(repository, "--set", "api.overload_status=UNAVAILABLE", "--set", "log.access=false") as running:
        yield running


@pytest.fixture
def channel(server):
    """A connection to it."""
    with connect(server.grpc) as open_channel:
        yield open_channel


def _refusal(error):
    """Return the reason and the retry delay of a rejection, in milliseconds."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == str(retry.retry_delay.ToMilliseconds())
    return info.reason, retry.retry_delay.ToMilliseconds()


def _answered(model, count, turns):
    """Call from as many threads as two batches have rows, to keep it just busy; none is rejected."""
    with ThreadPoolExecutor(2 * MAX_BATCH_ROWS) as callers:
        list(callers.map(lambda number: model.call(array(number, turns=turns)), range(1, count + 1)))


@pytest.mark.parametrize("name", ["batched", "unbatched"])
def test_limit_of_queue_is_exact(server, channel, name):
    """Exactly as many rows as the queue may hold are admitted, with and without batching."""
    model = BusyModel(server, channel, name)
    with model.occupied():
        admitted = [model.send(array(number)) for number in range(1, QUEUE_ROWS + 1)]
        model.wait_queued(QUEUE_ROWS)
        refused = [model.send(array(number)) for number in range(1, 6)]
        hints = [_refusal(call.exception()) for call in refused]
    for number, call in enumerate(admitted, start=1):
        check(call.result(), array(number))
    assert {reason for reason, _ in hints} == {"QUEUE_FULL"}
    assert all(delay_ms > 0 for _, delay_ms in hints)


def test_goodput_under_overload_and_immediate_recovery(server, channel):
    """Rejections cost little compared with answers; as soon as there is room for all, nothing is rejected.

    The CPU time of an answer is compared, which other work of the machine changes little.
    """
    model = BusyModel(server, channel, "batched")
    turns = model.turns(RUN_S)
    began_s = cpu_s(server)
    _answered(model, ANSWERS, turns)
    each_alone_s = (cpu_s(server) - began_s) / ANSWERS
    began_s, answers, refusals = cpu_s(server), 0, []
    while answers < ANSWERS:
        # Twice as many as wait and run.
        wave = [model.send(array(number, turns=turns)) for number in range(1, 2 * (QUEUE_ROWS + MAX_BATCH_ROWS) + 1)]
        errors = [call.exception() for call in wave]
        answers += errors.count(None)
        refusals += [error for error in errors if error is not None]
    each_beside_refusals_s = (cpu_s(server) - began_s) / answers
    assert {_refusal(error)[0] for error in refusals} == {"QUEUE_FULL"}
    assert each_beside_refusals_s < 2 * each_alone_s
    _answered(model, ANSWERS, turns)


def test_memory_does_not_grow_with_rejected_requests(server, channel):
    """Large requests, several times the queue's limit, in rounds of 16 MiB: all rounds need the same memory.

    Compared with the higher of the first two rounds: the server returns freed memory to the system now and then.
    """
    model = BusyModel(server, channel, "batched")
    resident_bytes = []
    refused = 0
    for _ in range(5):
        with model.occupied():
            calls = [model.send(array(number, length=LARGE_LENGTH)) for number in range(1, 65)]
            # A request is rejected before later ones.
            assert model.send(array(65, length=LARGE_LENGTH)).exception() is not None
        refused += sum(call.exception() is not None for call in calls)
        resident_bytes.append(server.resident_bytes())
    assert refused > 0, "more came than there was room for"
    assert resident_bytes[-1] - max(resident_bytes[:2]) < 16 * MIB, resident_bytes
