"""Permissions and quotas of unary requests and streams: models, priorities, and release on every path."""

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd.api.handler_resources import HandlerResources
from inferd.api.open_streams import OpenStreams
from inferd.api.request_decoder import RequestDecoder
from inferd.api.status import StatusTable
from inferd.api.unary import UnaryInference
from inferd.api.v1.codec import InferenceCodec
from inferd.api.v1.stream import InferenceStream
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import DeadlineExceededError, NotAuthenticatedError
from inferd.security.authorization.methods import MethodKind
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.api.fakes import FakeCall, FakeLargeMessages, FakeModel, FakeRegistry, NoWaits, Soon

CODES = grpc.StatusCode


def _request(*, name: str = "fake", priority: int = 0, request_id: str = "", values: tuple = (1, 2)) -> v1.InferRequest:
    x = np.array([values], np.float32)
    tensor = v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())
    return v1.InferRequest(model=name, inputs=[tensor], priority=priority, request_id=request_id)


class Bench:
    """Calls of one caller under one rule."""

    def __init__(self, **rule: object) -> None:
        self.model = FakeModel()
        self._registry = FakeRegistry(self.model)
        self._waits = NoWaits()
        quotas = QuotaStore(clock=lambda: 0.0)
        policy = Policy.model_validate({"rules": [{"principals": ["token:alice"], **rule}]})
        self.permissions = permissions_of("token:alice", policy, quotas)

    def call(self) -> FakeCall:
        call = FakeCall()
        call.context.principal, call.context.permissions = "token:alice", self.permissions
        return call

    def infer(self, **fields: object) -> FakeCall:
        call = self.call()
        unary = UnaryInference(
            RequestDecoder(InferenceCodec()), self._registry, StatusTable(), FakeLargeMessages(), self._waits
        )
        unary(call, _request(**fields).SerializeToString())
        return call

    def stream(self) -> tuple[FakeCall, InferenceStream]:
        call = self.call()
        parts = HandlerResources(
            registry=self._registry,
            statuses=StatusTable(),
            call_soon=Soon(),
            streams=OpenStreams(),
            waits=self._waits,
            large_messages=FakeLargeMessages(),
            limits=MessageLimits(),
        )
        return call, InferenceStream(call, RequestDecoder(InferenceCodec()), parts).open()

    def slots(self) -> int:
        """How many requests may still be opened."""
        quota = self.permissions.require(MethodKind.INFER, "fake").quota
        taken = 0
        while True:
            try:
                quota.acquire(1, 0.0)
            except Exception:  # noqa: BLE001  (other tests check which)
                break
            taken += 1
        for _ in range(taken):
            quota.release()
        return taken


@pytest.fixture
def bench() -> Bench:
    return Bench(quota={"concurrent_requests": 3})


def _ask(stream: InferenceStream, *ids: str, **fields: object) -> None:
    requests = [_request(request_id=each, **fields) for each in ids]
    stream.on_message(v1.StreamInferRequest(requests=requests).SerializeToString())


def _errors(call: FakeCall) -> list[int]:
    results = [result for sent in call.sent for result in v1.StreamInferResponse.FromString(sent).results]
    return [result.error.code for result in results]


def test_caps_priority_at_ceiling() -> None:
    """More urgent priorities are lowered, others kept, within those of the model."""
    bench = Bench(priority_ceiling=2)
    for priority in (0, 1, 2, 3):
        bench.infer(priority=priority)
    assert [request.priority for request in bench.model.submitted] == [2, 2, 2, 3]
    scavenger = Bench(priority_ceiling="scavenger")
    scavenger.infer(priority=1)
    assert [request.priority for request in scavenger.model.submitted] == [4]
    low = Bench(priority_ceiling=9)
    low.infer(priority=1)
    assert [request.priority for request in low.model.submitted] == [3]


def test_forbidden_model_is_named_if_visible() -> None:
    """Otherwise it does not exist; a stream stays open."""
    bench = Bench(methods=["metadata"])
    assert bench.infer().ended[0] is CODES.PERMISSION_DENIED
    call, stream = bench.stream()
    _ask(stream, "a")
    assert (_errors(call), call.ended) == ([CODES.PERMISSION_DENIED.value[0]], None)
    hidden = Bench(models=["other"])
    assert hidden.infer().ended == (CODES.NOT_FOUND, 'there is no model "fake"')


def test_unary_call_releases_quota_at_end(bench: Bench) -> None:
    """Once, after a response, an error or a cancellation."""
    answered, failed, gone = (bench.infer() for _ in range(3))
    assert bench.slots() == 0
    refused = bench.infer()
    assert refused.ended == (CODES.RESOURCE_EXHAUSTED, "the quota of 3 open requests is used up")
    refused.over()
    assert bench.slots() == 0
    bench.model.answer(0)
    answered.over()
    bench.model.submitted[1].reply.deliver(DeadlineExceededError("late"))
    failed.over()
    gone.terminated()
    gone.over()
    assert bench.slots() == 3


def test_ended_call_holds_no_quota(bench: Bench) -> None:
    """A callback registered after the end is called immediately."""
    call = bench.call()
    call.on_finished = lambda finisher: finisher(call, CODES.CANCELLED, "")
    unary = UnaryInference(
        RequestDecoder(InferenceCodec()), FakeRegistry(bench.model), StatusTable(), FakeLargeMessages(), NoWaits()
    )
    unary(call, _request().SerializeToString())
    assert bench.slots() == 3


def test_invalid_request_holds_no_quota(bench: Bench) -> None:
    """The same for an unknown model."""
    assert bench.infer(values=(1, 2, 3)).ended[0] is CODES.INVALID_ARGUMENT
    assert bench.infer(name="none").ended[0] is CODES.NOT_FOUND
    assert bench.slots() == 3


def test_stream_releases_quota_per_request(bench: Bench) -> None:
    """Answered or rejected, while the stream stays open."""
    call, stream = bench.stream()
    _ask(stream, "a", "b", "c", "d")
    assert bench.slots() == 0
    assert _errors(call) == []
    bench.model.answer(0)
    bench.model.submitted[1].reply.deliver(DeadlineExceededError("late"))
    assert bench.slots() == 2
    bench.model.answer(2)
    assert bench.slots() == 3
    assert sorted(_errors(call)) == [0, 0, CODES.DEADLINE_EXCEEDED.value[0], CODES.RESOURCE_EXHAUSTED.value[0]]


def test_ended_stream_releases_quota(bench: Bench) -> None:
    """Cancelled, or ended by authentication; later outcomes release nothing twice."""
    for end in (lambda call, stream: stream.on_terminated(), _end_by_guard):
        call, stream = bench.stream()
        _ask(stream, "a", "b")
        assert bench.slots() == 1
        end(call, stream)
        assert bench.slots() == 3
        call.over()
        assert bench.slots() == 3
    assert len(bench.model.cancelled) == 4


def _end_by_guard(call: FakeCall, _stream: InferenceStream) -> None:
    call.annotations["end_stream"](NotAuthenticatedError("no longer"))
    assert call.ended == (CODES.UNAUTHENTICATED, "no longer")


def test_rate_limit_spans_unary_and_streams() -> None:
    """One bucket for both, with a retry hint."""
    bench = Bench(quota={"requests_per_s": 2})
    bench.infer()
    _, stream = bench.stream()
    _ask(stream, "a", "b")
    refused = bench.infer()
    assert refused.ended == (CODES.RESOURCE_EXHAUSTED, "the quota of 2 requests a second is used up")
    assert len(bench.model.submitted) == 2


def test_requests_carry_weight_of_rule() -> None:
    """Principals share a model by it."""
    bench = Bench(weight=2.5)
    bench.infer()
    assert bench.model.submitted[0].principal.weight == 2.5
