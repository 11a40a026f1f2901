"""Each backpressure policy under overload, through real sockets.

Each wave of requests is several times what the model admits before it answers; the next one is sent after an answer, so
that there is overload on machines of any speed.
"""

import queue
import threading
from collections import Counter

import grpc
import numpy as np
import pytest
import yaml
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import MIB, connect, metric
from tests.patience import PATIENCE_S
from tests.server import serving

WIDTH = 256
QUEUE_ROWS = 8
#: The minimum number of waves, and the requests of each.
WAVES, WAVE = 8, 50
#: Samples during overload.
LOOKS = 10

#: Settings of the queue by model.
QUEUES = {
    "reject": {"policy": "reject"},
    "shed_oldest": {"policy": "shed_oldest"},
    "caller_runs": {"policy": "caller_runs"},
    "caller_runs, one": {"policy": "caller_runs", "caller_runs_limit": 1},
    "block": {"policy": "block"},
    "block, few": {"policy": "block", "max_blocked": 16},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The same model under every policy; each batch keeps it busy for about 10 ms."""
    repository = tmp_path_factory.mktemp("policies")
    model = onnx_models.slow(steps=1000, width=WIDTH)
    for name, its_queue in QUEUES.items():
        onnx_models.save(model, repository / name / "1" / "model.onnx")
        # Without a limit in time, which would be less than these rows on a slow machine.
        queue_settings = {"max_rows": QUEUE_ROWS, "max_delay_ms": 0, **its_queue}
        settings = {"queue": queue_settings, "batching": {"max_batch_size": 2}}
        (repository / name / "model.yaml").write_text(yaml.safe_dump(settings))
    with serving(repository) as running:
        yield running


def _request(model, number, **fields):
    x = np.full((1, WIDTH), number, np.float32)
    tensor = v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())
    return v1.InferRequest(model=model, request_id=str(number), inputs=[tensor], **fields)


def _is_own_answer(response):
    y = np.frombuffer(response.outputs[0].raw, np.float32)
    return bool((y == int(response.request_id)).all())


class Watch:
    """Samples a model's queue and checks health all the time, in a thread."""

    def __init__(self, server, model):
        self._server, self._model = server, model
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.health = []
        self.queue_rows = []
        self.resident_bytes = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _run(self):
        with connect(self._server.grpc) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while not self._done.is_set():
                self.health.append(health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status)
                self.resident_bytes.append(self._server.resident_bytes())
                self.queue_rows.append(metric(self._server, "inferd_queue_rows", model=self._model))


def overload(server, model, watch, **fields):
    """Send waves of requests; return the answers and the errors, after each call has ended once."""
    calls = []
    looks = len(watch.queue_rows)
    with connect(server.grpc) as channel:
        stub = InferenceServiceStub(channel)
        while len(calls) < WAVES * WAVE or len(watch.queue_rows) < looks + LOOKS:
            numbers = range(len(calls), len(calls) + WAVE)
            wave = [stub.Infer.future(_request(model, n, **fields), timeout=PATIENCE_S) for n in numbers]
            _wait_for_an_answer(wave)
            calls += wave
        errors = [call.exception() for call in calls]
    answers = [call.result() for call, error in zip(calls, errors, strict=True) if error is None]
    return answers, [error for error in errors if error is not None]


def _wait_for_an_answer(wave):
    """Until there is one, or all calls have ended."""
    ended = queue.SimpleQueue()
    for call in wave:
        call.add_done_callback(ended.put)
    for _ in wave:
        if ended.get(timeout=PATIENCE_S).exception() is None:
            return


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
    """The queue stayed within its limit, health was SERVING, and memory did not grow with rejected requests."""
    assert set(watch.health) == {health_pb2.HealthCheckResponse.SERVING}
    assert max(watch.queue_rows) <= QUEUE_ROWS
    assert max(watch.resident_bytes) - min(watch.resident_bytes) < 64 * MIB


def test_reject(server):
    """Requests beyond the queue are rejected at once with a retry delay; admitted ones are answered."""
    with Watch(server, "reject") as watch:
        answers, errors = overload(server, "reject", watch)
        refused = metric(server, "inferd_rejected_total", model="reject", reason="QUEUE_FULL")
        offered = metric(server, "inferd_offered_rows_total", model="reject")
    assert all(map(_is_own_answer, answers))
    assert max(answer.timing.batch_rows for answer in answers) == 2
    reasons = Counter(reason_and_delay(error)[0] for error in errors)
    assert set(reasons) == {"QUEUE_FULL"}
    assert refused == len(errors)
    assert offered == len(answers) + len(errors), "demand is seen in full while the queue refuses"
    assert all(reason_and_delay(error)[1] >= 1 for error in errors)
    check_watch(watch)


def test_shed_oldest(server):
    """The newest request is admitted, and the one that has waited longest is evicted."""
    with Watch(server, "shed_oldest") as watch:
        # Counted from when the server has the request. gRPC sends the deadline of a call in whole seconds, so that one
        # that left the client late is due before earlier ones.
        answers, errors = overload(server, "shed_oldest", watch, timeout=Duration(seconds=round(PATIENCE_S / 2)))
    assert all(map(_is_own_answer, answers))
    assert {reason_and_delay(error)[0] for error in errors} == {"SHED"}
    answered = {int(answer.request_id) for answer in answers}
    sent = len(answers) + len(errors)
    last = set(range(sent - QUEUE_ROWS, sent))
    assert last <= answered, "the last ones are in the queue when the load ends, and so are answered"
    check_watch(watch)


def test_caller_runs(server):
    """Some run outside the queue; beyond the limit they are rejected."""
    with Watch(server, "caller_runs, one") as watch:
        answers, errors = overload(server, "caller_runs, one", watch)
        ran = metric(server, "inferd_caller_runs_total", model="caller_runs, one")
    assert all(map(_is_own_answer, answers))
    assert ran > 0
    assert {reason_and_delay(error)[0] for error in errors} == {"CALLER_RUNS_LIMIT"}
    check_watch(watch)


def test_block(server):
    """Some wait for room; beyond the limit they are rejected, and so are late ones, unless they wait and expire."""
    with Watch(server, "block, few") as watch:
        answers, errors = overload(server, "block, few", watch)
        late_answers, late_errors = overload(server, "block, few", watch, timeout={"nanos": 1_000_000})
    assert all(map(_is_own_answer, answers + late_answers))
    assert {reason_and_delay(error)[0] for error in errors} == {"BLOCKED_LIMIT"}
    codes = {error.code() for error in late_errors}
    assert codes
    assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    check_watch(watch)


@pytest.mark.parametrize(
    ("model", "reasons"),
    [("reject", {"QUEUE_FULL"}), ("shed_oldest", {"SHED"}), ("caller_runs", set()), ("block", set())],
)
def test_streams(server, model, reasons):
    """Rejections are in-band and the stream continues; if a policy slows the producer, nothing is rejected."""
    messages = (v1.StreamInferRequest(requests=[_request(model, number)]) for number in range(60))
    with connect(server.grpc) as channel:
        results = [
            result
            for message in InferenceServiceStub(channel).StreamInfer(messages, timeout=PATIENCE_S)
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
