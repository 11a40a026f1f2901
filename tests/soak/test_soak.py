"""Minutes of good, bad, slow, impatient and disconnecting clients at once; then all resources must be released.

Not run by default: ``pytest tests/soak``, for longer with ``SOAK_S=3600``.
"""

import os
import random
import threading
import time
from collections import Counter

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.load import (
    MIB,
    BusyModel,
    add_model,
    array,
    busy_model,
    check,
    connect,
    descriptor_count,
    metric,
    request,
    thread_count,
)
from tests.patience import PATIENCE_S, eventually
from tests.server import serving

SOAK_S = float(os.environ.get("SOAK_S", "120"))
SETTLE_S = min(20.0, SOAK_S / 4)
POLICIES = ["reject", "shed_oldest", "caller_runs", "block"]
LARGE_LENGTH = MIB // 16

#: Statuses of calls to a loaded but healthy server.
_FAIR = {
    grpc.StatusCode.OK,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


@pytest.fixture
def server(tmp_path):
    """A model for each policy, with a short queue."""
    for policy in POLICIES:
        settings = {
            "queue": {"policy": policy, "max_rows": 16, "max_bytes": 8 * MIB, "max_blocked": 16},
            "batching": {"max_batch_size": 8, "max_wait_ms": 1},
            "runtime": {"intra_op_threads": 1},
        }
        add_model(tmp_path, policy, busy_model(), settings)
    with serving(tmp_path, "--set", "log.access=false") as running:
        yield running


class Client(threading.Thread):
    """One client: acts in a loop until told to stop, and counts the statuses of its calls."""

    def __init__(self, address, seed, turns_per_s, over):
        super().__init__(name=f"client {seed}")
        self._address = address
        self._chance = random.Random(seed)
        self._turns_per_s = turns_per_s
        self._over = over
        self.codes = Counter()
        self.errors = []

    def run(self):
        """Open a connection, use it for a while, and leave."""
        acts = [self._calls, self._impatient, self._bad, self._stream, self._silent_stream, self._leaves]
        try:
            while not self._over.is_set():
                with connect(self._address) as channel:
                    for _ in range(self._chance.randrange(1, 6)):
                        self._chance.choice(acts)(InferenceServiceStub(channel))
        except Exception as error:  # noqa: BLE001  (told by the test, which would not see it otherwise)
            self.errors.append(error)

    def _x(self):
        chance = self._chance
        busy_s = chance.choice([0, 0, 0, 0.002, 0.01])
        # A few are large, but their answers are within the 4 MiB of gRPC's clients.
        rows, length = (1, LARGE_LENGTH) if chance.random() < 0.02 else (chance.randrange(1, 12), chance.choice([1, 3]))
        return array(chance.randrange(1, 10_000), rows=rows, length=length, turns=round(busy_s * self._turns_per_s))

    def _ended(self, call, x):
        code = call.code()
        self.codes[code] += 1
        assert code in _FAIR, f"{code}: {call.details()}"
        if code is grpc.StatusCode.OK:
            check(call.result(), x)

    def _calls(self, stub):
        inputs = [self._x() for _ in range(self._chance.randrange(1, 20))]
        model = self._chance.choice(POLICIES)
        calls = [
            stub.Infer.future(request(model, x, priority=self._chance.randrange(4)), timeout=PATIENCE_S) for x in inputs
        ]
        for call, x in zip(calls, inputs, strict=True):
            self._ended(call, x)

    def _impatient(self, stub):
        x = self._x()
        call = stub.Infer.future(request(self._chance.choice(POLICIES), x), timeout=self._chance.choice([0.001, 0.02]))
        if self._chance.random() < 0.5:
            call.cancel()
            return
        self._ended(call, x)

    def _bad(self, stub):
        for bad in (request("nobody", self._x()), v1.InferRequest(model="reject"), request("block", self._x()[0])):
            code = stub.Infer.future(bad, timeout=PATIENCE_S).code()
            assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}, code

    def _messages(self, inputs):
        model = self._chance.choice(POLICIES)
        for number, x in enumerate(inputs):
            yield v1.StreamInferRequest(requests=[request(model, x, request_id=str(number))])

    def _stream(self, stub):
        inputs = [self._x() for _ in range(30)]
        answered = set()
        for message in stub.StreamInfer(self._messages(inputs), timeout=PATIENCE_S):
            for result in message.results:
                answered.add(int(result.request_id))
                if result.WhichOneof("result") == "response":
                    check(result.response, inputs[int(result.request_id)])
        assert answered == set(range(len(inputs))), "each request has one result"

    def _silent_stream(self, stub):
        stream = stub.StreamInfer(self._messages([self._x() for _ in range(30)]), timeout=0.5)
        self._over.wait(0.2)
        stream.cancel()

    def _leaves(self, _stub):
        with connect(self._address) as channel:
            for _ in range(10):
                InferenceServiceStub(channel).Infer.future(request(self._chance.choice(POLICIES), self._x()))


@pytest.mark.timeout(SOAK_S + 120)
def test_soak(server):
    """Every answer is right, every error is expected, and memory, threads and descriptors are as before."""
    with connect(server.grpc) as channel:
        turns_per_s = BusyModel(server, channel, "reject").turns(1)
    _wait_idle(server)
    threads, descriptors = thread_count(server), descriptor_count(server)
    over = threading.Event()
    clients = [Client(server.grpc, seed, turns_per_s, over) for seed in range(8)]
    for client in clients:
        client.start()
    pause = threading.Event()
    pause.wait(SETTLE_S)
    settled_bytes = server.resident_bytes()
    ends_at = time.monotonic() + SOAK_S - SETTLE_S
    resident_bytes = [settled_bytes]
    while time.monotonic() < ends_at and any(client.is_alive() for client in clients):
        pause.wait(1)
        resident_bytes.append(server.resident_bytes())
    over.set()
    for client in clients:
        client.join()
    assert [error for client in clients for error in client.errors] == []
    codes = sum((client.codes for client in clients), Counter())
    assert codes[grpc.StatusCode.OK] > SOAK_S, codes
    assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > 0, "the queues were full at times"
    _wait_idle(server)
    eventually(lambda: thread_count(server) <= threads, f"{threads} threads again")
    eventually(lambda: descriptor_count(server) <= descriptors, f"{descriptors} descriptors again")
    last = resident_bytes[-len(resident_bytes) // 4 :]
    assert sum(last) / len(last) - settled_bytes < 64 * MIB, [each // MIB for each in resident_bytes]
    with connect(server.grpc) as channel:
        for policy in POLICIES:
            BusyModel(server, channel, policy).call(array(3, rows=2, length=5))
    assert server.stop() == 0


def _wait_idle(server):
    for name in ("inferd_inflight_requests", "inferd_queue_rows", "inferd_queue_bytes"):
        eventually(lambda name=name: metric(server, name) == 0, f"{name} is 0")
