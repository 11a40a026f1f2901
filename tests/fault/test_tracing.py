"""A trace collector that is killed, restarted, or hangs: no call fails."""

import threading

import grpc
import pytest

from inferd import demo
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1 import inference_pb2_grpc
from tests.integration.test_call_trailers import request
from tests.load import metric
from tests.otlp import Receiver
from tests.patience import PATIENCE_S
from tests.server import serving

METHOD = "inferd.v1.InferenceService/Infer"
TIMEOUT_S = PATIENCE_S


class Load:
    """Callers who call until they are told to stop."""

    def __init__(self, address, callers=4):
        self._stop = threading.Event()
        self._channel = grpc.insecure_channel(address)
        self._stub = inference_pb2_grpc.InferenceServiceStub(self._channel)
        self._request = request()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        self._progress = threading.Condition()
        self.answered = 0
        self.failures = []
        for thread in self._threads:
            thread.start()

    def _call(self):
        while not self._stop.is_set():
            try:
                self._stub.Infer(self._request, timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                self.failures.append(error)
            with self._progress:
                self.answered += 1
                self._progress.notify_all()

    def stream(self, messages):
        """Send ``messages`` over a stream, which are all answered."""
        answers = [
            result for each in self._stub.StreamInfer(iter(messages), timeout=TIMEOUT_S) for result in each.results
        ]
        assert len(answers) == sum(len(message.requests) for message in messages)

    def wait_for(self, more):
        """Wait until more calls have ended."""
        with self._progress:
            goal = self.answered + more
            assert self._progress.wait_for(lambda: self.answered >= goal, TIMEOUT_S)

    def close(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._channel.close()


@pytest.fixture
def receiver():
    """A collector that may have been killed by the end of the test."""
    return Receiver()


@pytest.fixture
def server(receiver):
    """Traces every call."""
    settings = [f"tracing.endpoint={receiver.endpoint}", "tracing.sampling_ratio=1"]
    with serving(demo.repository(), *(f"--set={setting}" for setting in settings)) as running:
        yield running


@pytest.fixture
def load(server):
    """On that server; its callers see that no call has failed."""
    made = Load(server.grpc)
    yield made
    made.close()
    assert made.failures == []


def test_restarted_collector_gets_queued_spans(server, receiver, load):
    """Up to the limit of the queue."""
    receiver.wait_for(METHOD)
    receiver.close()
    server.wait_event("span export failed")
    load.wait_for(200)
    back = Receiver(receiver.port)
    back.wait_for(METHOD)
    server.wait_event("span export recovered")
    load.wait_for(50)
    load.close()
    back.close()


def test_hanging_collector(server, receiver, load):
    """Spans are dropped and counted; calls are not delayed."""
    receiver.go_on.clear()
    # Each request of a stream has a span.
    message = v1.StreamInferRequest(requests=[request()] * 64)
    while metric(server, "inferd_spans_dropped_total") == 0:
        load.stream([message] * 32)
    load.wait_for(200)
    load.close()
    assert server.stop() == 0
    receiver.go_on.set()
    receiver.close()
