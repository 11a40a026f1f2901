"""Each backpressure policy under more load than the model can take, through real sockets.

The model takes about 20 ms a run and two rows a batch, so that it answers about a hundred rows a second; requests are
sent at several times that, whether or not earlier ones were answered.
"""

import threading
import time
from collections import Counter

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import MIB, metric
from tests.server import serving

WIDTH = 256
QUEUE_ROWS = 8
REQUESTS = 400
RATE_PER_S = 400


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that is busy for a while with each batch."""
    return onnx_models.save(onnx_models.slow(steps=1000, width=WIDTH), tmp_path_factory.mktemp("slow") / "slow.onnx")


def _request(number, **fields):
    x = np.full((1, WIDTH), number, np.float32)
    return v1.InferRequest(
        request_id=str(number), inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())], **fields
    )


def _is_own_answer(response):
    y = np.frombuffer(response.outputs[0].raw, np.float32)
    return bool((y == int(response.request_id)).all())


def _policy(policy, *settings):
    arguments = [f"queue.policy={policy}", f"queue.max_rows={QUEUE_ROWS}", "batching.max_batch_size=2", *settings]
    return [part for setting in arguments for part in ("--set", setting)]


class Watch:
    """Looks at the queue and asks for health all the while, in a thread of its own."""

    def __init__(self, server):
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.queue_rows = []
        self.health_s = []
        self.resident_bytes = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _run(self):
        with grpc.insecure_channel(self._server.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            while not self._done.wait(0.02):
                started = time.monotonic()
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=10)
                self.health_s.append(time.monotonic() - started)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                self.queue_rows.append(metric(self._server, "inferd_queue_rows"))
                self.resident_bytes.append(self._server.resident_bytes())


def overload(server, *, timeout_s=20, **fields):
    """Send requests at a fixed rate; return the answers and the errors, each call having ended in just one of them."""
    with grpc.insecure_channel(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        stub.Infer(_request(0), timeout=10)
        started = time.monotonic()
        calls = []
        for number in range(REQUESTS):
            delay = started + number / RATE_PER_S - time.monotonic()
            if delay > 0:
                threading.Event().wait(delay)
            calls.append(stub.Infer.future(_request(number, **fields), timeout=timeout_s))
        errors = [call.exception() for call in calls]
        answers = [call.result() for call, error in zip(calls, errors, strict=True) if error is None]
    return answers, [error for error in errors if error is not None]


def reason_and_delay(error):
    """Return the reason and the retry delay in milliseconds; check that both forms of the hint agree."""
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    metadata = dict(error.trailing_metadata())
    info, retry = ErrorInfo(), RetryInfo()
    details = Status.FromString(metadata["grpc-status-details-bin"]).details
    assert details[0].Unpack(info)
    assert details[1].Unpack(retry)
    delay_ms = retry.retry_delay.ToMilliseconds()
    assert metadata["grpc-retry-pushback-ms"] == str(delay_ms)
    return info.reason, delay_ms


def check_watch(watch):
    """The queue kept to its bound, health answered at once, memory did not grow with what was refused."""
    assert len(watch.health_s) > 10
    assert max(watch.queue_rows) <= QUEUE_ROWS
    assert sorted(watch.health_s)[len(watch.health_s) // 2] < 0.05
    assert max(watch.resident_bytes) - min(watch.resident_bytes) < 64 * MIB


def test_reject(model):
    """What finds no room is refused at once, with when to come again; what was admitted is answered in time."""
    with serving(model, *_policy("reject")) as server, Watch(server) as watch:
        answers, errors = overload(server)
        refused = metric(server, "inferd_rejected_total", reason="QUEUE_FULL")
        offered = metric(server, "inferd_offered_rows_total")
    assert len(answers) + len(errors) == REQUESTS
    assert all(map(_is_own_answer, answers))
    assert max(answer.timing.batch_rows for answer in answers) == 2
    reasons = Counter(reason_and_delay(error)[0] for error in errors)
    assert set(reasons) == {"QUEUE_FULL"}
    assert refused == len(errors)
    assert offered == REQUESTS + 1, "demand is seen in full while the queue refuses"
    assert all(1 <= reason_and_delay(error)[1] <= 5000 for error in errors)
    # Eight rows wait at most, in batches of two.
    assert max(answer.timing.queue_us for answer in answers) < 3_000_000
    check_watch(watch)


def test_shed_oldest(model):
    """The newest is admitted at the cost of the one that has waited longest."""
    with serving(model, *_policy("shed_oldest")) as server, Watch(server) as watch:
        answers, errors = overload(server)
    assert all(map(_is_own_answer, answers))
    assert {reason_and_delay(error)[0] for error in errors} == {"SHED"}
    answered = {int(answer.request_id) for answer in answers}
    last = set(range(REQUESTS - QUEUE_ROWS, REQUESTS))
    assert last <= answered, "the last ones are in the queue when the load ends, and so are answered"
    check_watch(watch)


def test_caller_runs(model):
    """Some run beside the queue; beyond the limit they are refused."""
    with serving(model, *_policy("caller_runs", "queue.caller_runs_limit=1")) as server, Watch(server) as watch:
        answers, errors = overload(server)
        ran = metric(server, "inferd_caller_runs_total")
    assert all(map(_is_own_answer, answers))
    assert ran > 0
    assert {reason_and_delay(error)[0] for error in errors} == {"CALLER_RUNS_LIMIT"}
    check_watch(watch)


def test_block(model):
    """Some wait for room; beyond the limit they are refused, and who waits past the deadline is told so."""
    arguments = _policy("block", "queue.max_blocked=16")
    with serving(model, *arguments) as server, Watch(server) as watch:
        answers, errors = overload(server)
        late_answers, late_errors = overload(server, timeout={"nanos": 30_000_000})
    assert all(map(_is_own_answer, answers + late_answers))
    assert {reason_and_delay(error)[0] for error in errors} == {"BLOCKED_LIMIT"}
    codes = Counter(error.code() for error in late_errors)
    assert set(codes) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert codes[grpc.StatusCode.DEADLINE_EXCEEDED] > 0
    check_watch(watch)


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [("reject", {"QUEUE_FULL"}), ("shed_oldest", {"SHED"}), ("caller_runs", set()), ("block", set())],
)
def test_streams(model, policy, reasons):
    """Refusals come in-band and the stream lives on; where a policy slows the producer, nothing is refused at all."""
    messages = (v1.StreamInferRequest(requests=[_request(number)]) for number in range(60))
    with serving(model, *_policy(policy)) as server, grpc.insecure_channel(server.grpc) as channel:
        results = [
            result
            for message in InferenceServiceStub(channel).StreamInfer(messages, timeout=40)
            for result in message.results
        ]
    assert sorted(int(result.request_id) for result in results) == list(range(60)), "one result each"
    errors = [result.error for result in results if result.WhichOneof("result") == "error"]
    answers = [result.response for result in results if result.WhichOneof("result") == "response"]
    assert answers
    assert all(map(_is_own_answer, answers))
    found = set()
    for error in errors:
        info = ErrorInfo()
        assert error.details[0].Unpack(info)
        found.add(info.reason)
    assert found == reasons
