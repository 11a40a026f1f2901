"""Stop signals while requests are open."""

import signal
import threading

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

WIDTH = 256
# Otherwise the queue refuses what would wait for long, and little is left to wait when the signal arrives.
ADMIT_ALL = ("--set", "queue.max_delay_ms=0")
# As long as a slow machine needs for all that was admitted.
LONG_GRACE = ("--set", f"server.drain_grace_s={PATIENCE_S:g}")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A slow model, so that requests wait when the signal arrives."""
    return onnx_models.save(onnx_models.slow(steps=1000, width=WIDTH), tmp_path_factory.mktemp("slow") / "slow.onnx")


def _request(number):
    x = np.full((1, WIDTH), number, np.float32)
    return v1.InferRequest(request_id=str(number), inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_admitted_requests_are_answered(model, number):
    """The signal arrives when many wait; all of them get their answer, and the exit status is 0."""
    with serving(model, "--set", "batching.max_batch_size=2", *ADMIT_ALL, *LONG_GRACE) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            stub = InferenceServiceStub(channel)
            # Fewer than a connection may have open: the others would be sent later, or refused by the GOAWAY.
            calls = [stub.Infer.future(_request(each), timeout=PATIENCE_S) for each in range(120)]
            eventually(lambda: metric(server, "inferd_offered_rows_total") == len(calls), "all are admitted")
            server.process.send_signal(number)
            answers = [call.result() for call in calls]
        assert server.wait() == 0, server.text
    assert [answer.request_id for answer in answers] == [str(each) for each in range(len(calls))]
    admitted = [line for line in server.events("access") if line["method"].endswith("/Infer")]
    assert [line["status"] for line in admitted] == ["OK"] * len(calls)


def test_streams_finish_open_requests(model):
    """An open stream neither delays the shutdown nor loses a request."""
    asked = threading.Event()
    ended = threading.Event()

    def messages():
        yield v1.StreamInferRequest(requests=[_request(each) for each in range(20)])
        asked.set()
        ended.wait(PATIENCE_S)

    with serving(model, "--set", "batching.max_batch_size=2", *ADMIT_ALL, *LONG_GRACE) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            stream = InferenceServiceStub(channel).StreamInfer(messages(), timeout=PATIENCE_S)
            results = list(next(stream).results)
            assert asked.wait(PATIENCE_S)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as end:
                results.extend(result for message in stream for result in message.results)
            ended.set()
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "draining" in end.value.details()
        assert sorted(int(result.request_id) for result in results) == list(range(20))
        assert all(result.WhichOneof("result") == "response" for result in results)
        assert server.wait() == 0, server.text


def test_cancels_calls_after_grace(model):
    """With hardly any grace period, the process ends soon, with an exit status for unanswered requests."""
    arguments = ("--set", "batching.max_batch_size=1", "--set", "server.drain_grace_s=0.05", *ADMIT_ALL)
    with serving(model, *arguments) as server:
        with grpc.insecure_channel(server.grpc) as channel:
            stub = InferenceServiceStub(channel)
            calls = [stub.Infer.future(_request(each), timeout=PATIENCE_S) for each in range(500)]
            # Calls are answered in any order: the first one may be among the last.
            answered = threading.Event()
            for call in calls:
                call.add_done_callback(lambda _: answered.set())
            assert answered.wait(PATIENCE_S)
            server.process.send_signal(signal.SIGTERM)
            codes = {call.code() for call in calls}
        assert server.wait() == 1, server.text
    assert codes > {grpc.StatusCode.OK}


def test_second_signal_exits_at_once(model):
    """Without the grace period."""
    arguments = ("--set", "batching.max_batch_size=1", "--set", "server.drain_delay_s=60")
    with serving(model, *arguments) as server:
        server.process.send_signal(signal.SIGTERM)
        server.wait_event("draining")
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 128 + signal.SIGINT


def test_exits_without_ready_model(tmp_path):
    """With status 1 and the reason."""
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(AssertionError) as raised, serving(tmp_path / "broken.onnx"):
        pass
    assert '"event":"model failed to load"' in str(raised.value)
    assert '"reason"' in str(raised.value)
