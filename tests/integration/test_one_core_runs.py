"""Batches on one core each, on a real server that is asked for more than it can do."""

import os

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests import onnx_models
from tests.load import metric
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

_WIDTH = 256
_CALLS = 600


@pytest.fixture
def two_cores():
    """The process and those that it starts may use two cores."""
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("there is one core only, so there is nothing to choose")
    os.sched_setaffinity(0, sorted(cores)[:2])
    yield
    os.sched_setaffinity(0, cores)


def _request(number):
    x = np.full((1, _WIDTH), number / _CALLS, np.float32)
    return v1.InferRequest(request_id=str(number), inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())])


@pytest.mark.usefixtures("two_cores")
def test_answers_are_the_same_on_one_core_and_on_all(tmp_path):
    """All requests of a backlog get the answer that each of them gets alone."""
    model = onnx_models.save(onnx_models.slow(steps=200, width=_WIDTH), tmp_path / "slow.onnx")
    settings = ("batching.max_batch_size=4", "queue.max_delay_ms=0", "server.max_concurrent_streams=1000")
    with (
        serving(model, *(f"--set={each}" for each in settings)) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = InferenceServiceStub(channel)

        def infer(number):
            return stub.Infer.future(_request(number), timeout=PATIENCE_S)

        def backlog():
            """Ask for everything at once, and return whether some of it ran on one core."""
            calls = [infer(number) for number in range(_CALLS)]
            answers.update((number, call.result().outputs[0].raw) for number, call in enumerate(calls))
            return metric(server, "inferd_one_core_batches_total") > 0

        answers = {}
        eventually(backlog, "batches have run on one core")
        for number in range(0, _CALLS, 50):
            assert infer(number).result().outputs[0].raw == answers[number]
        # Clients without a backlog get all cores.
        before = metric(server, "inferd_one_core_batches_total")
        for number in range(20):
            infer(number).result()
        assert metric(server, "inferd_one_core_batches_total") == before
