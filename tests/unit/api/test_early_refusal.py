"""Requests that are rejected before their tensors are decoded."""

import math
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api import early_refusal, unary
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.request_decoder import RequestDecoder
from inferd.api.status import StatusTable
from inferd.api.unary import UnaryInference
from inferd.api.v1.codec import InferenceCodec
from inferd.errors import DeadlineExceededError, OverloadedError
from inferd.observability import timing
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.unit.api.fakes import FakeCall, FakeLargeMessages, FakeModel, FakeRegistry, NoWaits
from tests.unit.call_context import known

NOW = 1000.0


class FakeBatcher:
    """Rejects each request with ``error``, if that is set."""

    def __init__(self):
        self.error = None
        self.asked = []
        self.waiting = SimpleNamespace(rows=8, row_limit=8)
        self.refused_rows = []

    def early_refusal(self, priority, deadline, now, *, principal, weight):
        self.asked.append((priority, deadline, now))
        return self.error

    def refused(self, rows, received_at, error):
        self.refused_rows.append((rows, received_at, error))


class Bench:
    """A handler, and a model that has seen a request of each template."""

    def __init__(self, codec, monkeypatch):
        self.now = NOW
        for module in (unary, early_refusal):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        self.model = FakeModel()
        self.model.batcher = self.batcher = FakeBatcher()
        self.statuses = StatusTable()
        self.large = FakeLargeMessages()
        self.handle = UnaryInference(
            RequestDecoder(codec), FakeRegistry(self.model), self.statuses, self.large, NoWaits()
        )

    def ask(self, request, call=None):
        call = call or FakeCall()
        self.handle(call, request.SerializeToString())
        return call

    def refuse(self, request, error, call=None):
        """Send ``request`` once to be admitted, and once more to be rejected with ``error``."""
        self.ask(request)
        self.batcher.error = error
        return self.ask(request, call)


def v1_request(**fields):
    x = np.array([[1, 2], [3, 4]], np.float32)
    return v1.InferRequest(model="fake", inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())], **fields)


def oip_tensor(**fields):
    return oip.ModelInferRequest.InferInputTensor(**{"name": "x", "datatype": "FP32", "shape": [2, 2], **fields})


def oip_request(**fields):
    defaults = {"model_name": "fake", "inputs": [oip_tensor()], "raw_input_contents": [bytes(16)]}
    return oip.ModelInferRequest(**{**defaults, **fields})


def parameters(**values):
    return {name: oip.InferParameter(int64_param=value) for name, value in values.items()}


def full():
    return OverloadedError("full", retry_after_s=0.25)


CASES = {"v1": (InferenceCodec(), v1_request), "oip": (OpenInferenceCodec(), oip_request)}


@pytest.mark.parametrize("protocol", CASES)
def test_rejects_without_building_the_request(protocol, monkeypatch):
    """The log and metrics have the facts that a rejection by the queue has."""
    codec, request = CASES[protocol]
    bench, error = Bench(codec, monkeypatch), full()
    call = bench.refuse(request(**{"request_id" if protocol == "v1" else "id": "mine"}), error)
    assert call.ended == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert len(bench.model.submitted) == 1
    assert bench.batcher.refused_rows == [(2, NOW, error)]
    assert known(call.context) == {"request_id": "mine", "model": "fake", "version": "3", "rows": 2}


def test_times_decoding_on_request(monkeypatch):
    """For traces and the trailer, as for requests that reach the queue."""
    bench, call = Bench(InferenceCodec(), monkeypatch), FakeCall()
    stages = timing.measure(call.annotations)
    bench.refuse(v1_request(), full(), call)
    assert stages.durations_s() == [("decode", 0.0)]


@pytest.mark.parametrize(
    ("protocol", "fields", "call_deadline", "expected"),
    [
        ("v1", {}, math.inf, (2, NOW + 30)),
        ("v1", {"priority": 3}, NOW + 5, (3, NOW + 5)),
        ("v1", {"timeout": Duration(seconds=2)}, NOW + 5, (2, NOW + 2)),
        ("oip", {"parameters": parameters(priority=1)}, math.inf, (1, NOW + 30)),
        ("oip", {"parameters": parameters(timeout=2_000_000)}, NOW + 1, (2, NOW + 1)),
    ],
)
def test_checks_with_priority_and_deadline(protocol, fields, call_deadline, expected, monkeypatch):
    """Those of the request message."""
    codec, request = CASES[protocol]
    bench, call = Bench(codec, monkeypatch), FakeCall()
    call.deadline = call_deadline
    bench.refuse(request(**fields), None, call)
    assert bench.batcher.asked == [(*expected, NOW)]
    assert len(bench.model.submitted) == 2


def test_expired_request_is_no_overload(monkeypatch):
    """It gets the status of the error."""
    bench = Bench(InferenceCodec(), monkeypatch)
    call = bench.refuse(v1_request(), DeadlineExceededError("late"))
    assert call.ended == (grpc.StatusCode.DEADLINE_EXCEEDED, "late")


def test_status_of_an_error_is_cached(monkeypatch):
    """It is encoded once for all requests rejected with the same error object."""
    bench, error = Bench(InferenceCodec(), monkeypatch), full()
    first = bench.statuses.status_of(error)
    assert bench.statuses.status_of(error) is first
    assert bench.statuses.status_of(error).trailers() is first.trailers()
    other = bench.statuses.status_of(OverloadedError("full", retry_after_s=0.5))
    assert dict(other.trailing_metadata())["grpc-retry-pushback-ms"] == "500"


LISTS = oip.InferTensorContents(fp32_contents=[0.5] * 6000)
UNKNOWN = {
    "v1, raw": ("v1", v1_request(outputs=["y"]), 2),
    "v1, list": ("v1", v1.InferRequest(model="fake", inputs=[v1.Tensor(name="x", shape=[9, 2], floats=[0.5] * 18)]), 9),
    "oip, raw": ("oip", oip_request(model_version="3"), 2),
    "oip, large list": (
        "oip",
        oip.ModelInferRequest(model_name="fake", inputs=[oip_tensor(shape=[3000, 2], contents=LISTS)]),
        3000,
    ),
    "oip, not enough bytes": (
        "oip",
        oip.ModelInferRequest(model_name="fake", inputs=[oip_tensor()], raw_input_contents=[b"x"]),
        2,
    ),
}


def overloaded(protocol, monkeypatch):
    """Return a bench whose model has just rejected a request."""
    codec, request = CASES[protocol]
    bench = Bench(codec, monkeypatch)
    bench.refuse(request(), full())
    return bench


@pytest.mark.parametrize("case", UNKNOWN)
def test_rejects_unknown_requests_by_their_outline(case, monkeypatch):
    """Whatever their size and before validation, during an overload."""
    protocol, request, rows = UNKNOWN[case]
    bench = overloaded(protocol, monkeypatch)
    setattr(request, "request_id" if protocol == "v1" else "id", "mine")
    call = bench.ask(request)
    assert call.ended == (grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert known(call.context) == {"request_id": "mine", "model": "fake", "version": "3", "rows": rows}
    assert bench.batcher.refused_rows[1:] == [(rows, NOW, bench.batcher.error)]
    assert (len(bench.model.submitted), bench.large.work.waiting) == (1, [])


def test_rejection_by_the_queue_starts_an_overload(monkeypatch):
    """Where no request matches a template, only the queue rejects at first."""
    bench = Bench(OpenInferenceCodec(), monkeypatch)
    bench.batcher.error = full()
    bench.ask(oip_request())
    bench.model.submitted[0].reply.deliver(full())
    assert bench.ask(oip_request(model_version="3")).ended is not None
    assert len(bench.model.submitted) == 1


def test_decodes_unknown_requests_after_the_overload(monkeypatch):
    """Some time after the last rejection."""
    bench = overloaded("oip", monkeypatch)
    bench.now += 0.2
    bench.ask(oip_request(model_version="3"))
    assert len(bench.model.submitted) == 2


@pytest.mark.parametrize(
    ("protocol", "request_", "expected"),
    [
        ("v1", v1_request(version="9"), "NOT_FOUND"),
        ("v1", v1_request(priority=99), "INVALID_ARGUMENT"),
        ("v1", v1_request(timeout=Duration(seconds=-1)), "INVALID_ARGUMENT"),
        ("oip", oip_request(parameters={"priority": oip.InferParameter(string_param="1")}), "INVALID_ARGUMENT"),
        ("oip", oip_request(inputs=[oip_tensor(name="z")]), "INVALID_ARGUMENT"),
        ("oip", oip_request(inputs=[oip_tensor(shape=[0, 2])]), "INVALID_ARGUMENT"),
        ("oip", oip_request(inputs=[oip_tensor(shape=[2**40, 2])]), "INVALID_ARGUMENT"),
    ],
)
def test_invalid_outline_precedes_overload(protocol, request_, expected, monkeypatch):
    """The request is decoded for its own error."""
    call = overloaded(protocol, monkeypatch).ask(request_)
    assert call.ended[0].name == expected


class Limited(Bench):
    """A bench whose callers have permissions."""

    def __init__(self, monkeypatch, **rule):
        super().__init__(InferenceCodec(), monkeypatch)
        policy = Policy.model_validate({"rules": [{"principals": ["*"], **rule}]})
        self.permissions = permissions_of("token:alice", policy, QuotaStore(clock=lambda: NOW))

    def ask(self, request, call=None):
        call = call or FakeCall()
        call.method = "/inferd.v1.InferenceService/Infer"
        call.context.permissions = self.permissions
        super().ask(request, call)
        if call.ended is not None:
            call.over(*call.ended)
        return call


def test_checks_with_the_granted_priority(monkeypatch):
    """Not with the requested one."""
    bench = Limited(monkeypatch, priority_ceiling=2)
    bench.refuse(v1_request(priority=1), full())
    assert bench.batcher.asked == [(2, NOW + 30, NOW)]


def test_rejected_requests_are_not_charged(monkeypatch):
    """Their rows are released, as for requests that the queue rejects."""
    bench = Limited(monkeypatch, quota={"rows_per_s": 4})
    calls = [bench.refuse(v1_request(), full()), *(bench.ask(v1_request()) for _ in range(5))]
    assert [call.ended[1] for call in calls] == ["full"] * 6


def test_quota_precedes_overload(monkeypatch):
    """The error names the caller's own limit rather than the queue's."""
    bench = Limited(monkeypatch, quota={"concurrent_requests": 1})
    call = bench.refuse(v1_request(), full())
    assert call.ended == (grpc.StatusCode.RESOURCE_EXHAUSTED, "the quota of 1 open requests is used up")
    assert bench.batcher.refused_rows == []


def test_room_in_the_queue_skips_the_check(monkeypatch):
    """The number of queued rows is read for each request."""
    bench = Bench(InferenceCodec(), monkeypatch)
    bench.batcher.waiting.rows = 7
    bench.refuse(v1_request(), full())
    assert bench.batcher.asked == []
