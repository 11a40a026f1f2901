"""More load than a model can take: what is admitted is exact, what is answered stays near capacity, nothing is kept.

The models run in one thread, about 20 ms a batch of four rows, so that the clients in this process hardly compete.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from tests.load import MIB, BusyModel, add_model, array, busy_model, check, connect
from tests.server import serving

QUEUE_ROWS = 32
QUEUE_BYTES = 8 * MIB
MAX_BATCH_ROWS = 4
RUN_S = 0.02
#: A float for each element: a quarter of a mebibyte.
LARGE_LENGTH = MIB // 16


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Two models with short queues, in a server that reports overload as Triton does."""
    repository = tmp_path_factory.mktemp("overload")
    settings = {
        "queue": {"max_rows": QUEUE_ROWS, "max_bytes": QUEUE_BYTES},
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
    """Return the reason and the hint of a refusal, in milliseconds."""
    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == str(retry.retry_delay.ToMilliseconds())
    return info.reason, retry.retry_delay.ToMilliseconds()


def _open_loop(model, *, rate_per_s, seconds, turns):
    """Send at a fixed rate, whatever comes back; return the calls and when each was sent, from the start."""
    started_at = time.monotonic()
    pause = threading.Event()
    calls = []
    for number in range(round(rate_per_s * seconds)):
        due_at = started_at + number / rate_per_s
        if (delay_s := due_at - time.monotonic()) > 0:
            pause.wait(delay_s)
        calls.append((time.monotonic() - started_at, model.send(array(number + 1, turns=turns))))
    return calls


def _answered_per_s(model, turns):
    """Return what the model can do when it is just kept busy."""
    started_at = time.monotonic()
    with ThreadPoolExecutor(2 * MAX_BATCH_ROWS) as callers:
        answers = list(callers.map(lambda number: model.call(array(number, turns=turns)), range(1, 121)))
    return len(answers) / (time.monotonic() - started_at)


@pytest.mark.parametrize("name", ["batched", "unbatched"])
def test_the_bound_of_the_queue_is_exact(server, channel, name):
    """As many rows as the queue may hold are admitted, with batching or without; each further one is refused."""
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


def test_most_of_the_capacity_is_kept_and_all_of_it_is_back_at_once(server, channel):
    """At twice the capacity most of it is answered, in time; as soon as the load is below it, nothing is refused."""
    model = BusyModel(server, channel, "batched")
    turns = model.turns(RUN_S)
    capacity_per_s = _answered_per_s(model, turns)
    started_at = time.monotonic()
    overload = _open_loop(model, rate_per_s=2 * capacity_per_s, seconds=2, turns=turns)
    relief = _open_loop(model, rate_per_s=capacity_per_s / 2, seconds=1, turns=turns)
    answers = [call.result() for _, call in overload if call.exception() is None]
    assert len(answers) / 2 > capacity_per_s / 2
    assert {_refusal(call.exception())[0] for _, call in overload if call.exception() is not None} == {"QUEUE_FULL"}
    # The queue holds eight batches.
    assert max(answer.timing.queue_us for answer in answers) < 1e6
    late = [call for sent_s, call in relief if sent_s > 0.3]
    assert sum(call.exception() is None for call in late) >= 0.9 * len(late)
    assert time.monotonic() - started_at < 10, "nothing was left to wait for"


def test_memory_does_not_grow_with_what_is_refused(server, channel):
    """Large requests, several times what the queue may hold, again and again: the same memory does for all of them."""
    model = BusyModel(server, channel, "batched")
    resident_bytes = []
    refused = 0
    for _ in range(5):
        with model.occupied(0.4):
            calls = [model.send(array(number, length=LARGE_LENGTH)) for number in range(1, 65)]
            refused += sum(call.exception() is not None for call in calls)
        resident_bytes.append(server.resident_bytes())
    assert refused > 0, "more came than there was room for"
    assert resident_bytes[-1] - resident_bytes[1] < 16 * MIB, resident_bytes
