"""Calls whose model is loaded on demand and is cold, without a network and a manager."""

import math
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api import admission, model_waits, stream, stream_request, unary
from inferd.api.admission import ModelView
from inferd.api.handler_resources import HandlerResources
from inferd.api.model_waits import ModelWaits
from inferd.api.open_streams import OpenStreams
from inferd.api.request_decoder import RequestDecoder
from inferd.api.status import StatusTable
from inferd.api.unary import UnaryInference, query_handler
from inferd.api.v1.codec import InferenceCodec
from inferd.api.v1.stream import InferenceStream
from inferd.api.wire_scanner import MessageLimits
from inferd.call_context import LOAD_WAIT_KEY
from inferd.config.settings import ModelSettings
from inferd.errors import ModelUnavailableError, ServingError
from inferd.models.on_demand import OnDemandLoads
from inferd.models.states import ModelState
from inferd.observability import timing
from inferd.security.authorization.policy import Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from tests.fakes import FakeClock, ManualPollThread
from tests.unit.api.fakes import ColdModel, FakeCall, FakeLargeMessages, FakeRegistry, Soon

CODES = grpc.StatusCode


class Bench:
    """Handlers of one model that is cold, and what they need."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = FakeClock(1000.0)
        for module in (admission, model_waits, stream, stream_request, unary):
            monkeypatch.setattr(module, "monotonic", self.clock)
        self.poll = ManualPollThread(self.clock)
        self.poll.busy = True
        self.asked: list[str] = []
        self.expected_s = 0.0
        self.model = ColdModel()
        self.registry = FakeRegistry(self.model)
        self.statuses = StatusTable()
        self.large = FakeLargeMessages()
        self.loads = OnDemandLoads(
            request_load=self.asked.append,
            expected_s=lambda _: self.expected_s,
            has_room=lambda _: True,
            poll_thread=self.poll,
            clock=self.clock,
            max_waiting=100,
        )
        self.waits = ModelWaits(self.loads, self.registry)
        self.unary = UnaryInference(
            RequestDecoder(InferenceCodec()), self.registry, self.statuses, self.large, self.waits
        )

    def load_ends(self, state: ModelState = ModelState.READY, error: ServingError | None = None) -> None:
        self.model.state = state
        self.loads.ended("fake", error)
        self.poll.run_soon()

    def infer(self, call: FakeCall | None = None, rows: int = 2, **fields: Any) -> FakeCall:
        call = call or FakeCall()
        self.unary(call, request(rows=rows, **fields).SerializeToString())
        return call


class StreamBench(Bench):
    """A stream of that model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.call = FakeCall()
        self.soon = Soon()
        self.streams = OpenStreams()
        parts = HandlerResources(
            registry=self.registry,
            statuses=self.statuses,
            call_soon=self.soon,
            streams=self.streams,
            waits=self.waits,
            large_messages=self.large,
            limits=MessageLimits(requests=2000),
        )
        decoder = RequestDecoder(InferenceCodec())
        self.stream = InferenceStream(self.call, decoder, parts).open()

    def ask(self, *ids: str, rows: int = 2) -> None:
        requests = [request(request_id=each, rows=rows) for each in ids]
        self.stream.on_message(v1.StreamInferRequest(requests=requests).SerializeToString())

    def settle(self) -> None:
        """Let the poll thread do what there is to do."""
        while self.poll.soon or self.soon.waiting or self.large.work.waiting:
            self.poll.run_soon()
            self.soon.run()
            self.large.work.run()

    @property
    def results(self) -> list[tuple[str, int]]:
        """Id and status of each result, in order."""
        messages = map(v1.StreamInferResponse.FromString, self.call.sent)
        return [(result.request_id, result.error.code) for message in messages for result in message.results]


def request(*, rows: int = 2, **fields: Any) -> v1.InferRequest:
    x = np.zeros((rows, 2), np.float32)
    return v1.InferRequest(model="fake", inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())], **fields)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> StreamBench:
    return StreamBench(monkeypatch)


@pytest.mark.parametrize("rows", [2, 4000])
def test_call_goes_on_when_its_model_is_loaded(bench: Bench, rows: int) -> None:
    """Large messages too, which another thread decodes; its timeout counts from its arrival, decoding from then on."""
    call = FakeCall()
    stages = timing.measure(call.annotations)
    bench.infer(call, rows, timeout={"seconds": 9})
    bench.large.work.run()
    bench.large.call_soon.run()
    assert (bench.asked, bench.model.submitted, call.ended) == (["fake"], [], None)
    assert (call.context.model, call.context.version) == ("fake", "3")
    bench.clock.advance(4.0)
    bench.load_ends()
    bench.large.work.run()
    bench.large.call_soon.run()
    (submitted,) = bench.model.submitted
    assert (submitted.rows, submitted.received_at, submitted.deadline) == (rows, 1004.0, 1009.0)
    bench.model.answer(0)
    assert v1.InferResponse.FromString(call.sent[0]).model == "fake"
    assert next(iter(stages.durations_s())) == ("load", 4.0)
    assert call.annotations[LOAD_WAIT_KEY] == 4000.0


def test_calls_share_a_load(bench: Bench) -> None:
    """It is asked for once, and all are answered."""
    calls = [bench.infer() for _ in range(20)]
    bench.load_ends()
    for number in range(20):
        bench.model.answer(number)
    assert bench.asked == ["fake"]
    assert [call.ended for call in calls] == [(CODES.OK, "")] * 20


@pytest.mark.parametrize(
    ("call_s", "timeout_s", "limit_s"), [(5.0, 0, 5.0), (5.0, 2, 2.0), (5.0, 7, 5.0), (None, 2, 2.0), (None, 0, 30.0)]
)
def test_call_that_the_load_would_outlast(bench: Bench, call_s: float | None, timeout_s: int, limit_s: float) -> None:
    """Refused at once with a hint: by the deadline of the call, its own timeout, or the model's default."""
    for left_s in (limit_s + 0.01, limit_s):
        call = FakeCall()
        call.deadline = math.inf if call_s is None else bench.clock.now + call_s
        bench.expected_s = left_s
        bench.infer(call, timeout={"seconds": timeout_s})
        if left_s > limit_s:
            code, details = call.ended
            assert (code, "is being loaded" in details) == (CODES.UNAVAILABLE, True)
        else:
            assert call.ended is None
    assert bench.asked == ["fake"]


def test_timeout_that_may_not_be_overridden(bench: Bench) -> None:
    """The default applies, as for requests to models that are loaded."""
    bench.model.settings = ModelSettings.model_validate(
        {"queue": {"allow_timeout_override": False, "default_timeout_ms": 1000}}
    )
    bench.expected_s = 1.5
    assert bench.infer(timeout={"seconds": 9}).ended[0] is CODES.UNAVAILABLE


def test_call_whose_load_fails(bench: Bench) -> None:
    """It gets the error of the load."""
    call = bench.infer()
    bench.load_ends(ModelState.FAILED, ModelUnavailableError("it is damaged", retry_after_s=1.0))
    assert call.ended == (CODES.UNAVAILABLE, "it is damaged")


def test_version_that_failed_while_others_loaded(bench: Bench) -> None:
    """The load has succeeded as a whole, but not for this one."""
    call = bench.infer()
    bench.load_ends(ModelState.FAILED)
    assert call.ended == (CODES.UNAVAILABLE, "it is cold")
    assert bench.asked == ["fake"]


def test_model_that_is_evicted_before_the_call_comes_to_it(bench: Bench) -> None:
    """Loaded again, but not forever."""
    call = bench.infer()
    for loads in (1, 2, 3):
        assert (len(bench.asked), call.ended) == (loads, None)
        bench.load_ends(ModelState.ON_DEMAND)
    assert call.ended == (CODES.UNAVAILABLE, "it is cold")


def test_call_that_ends_while_it_waits(bench: Bench) -> None:
    """Cancelled or expired: it is not submitted when the model is there."""
    call = bench.infer()
    assert bench.loads.waiting("fake") == 1
    call.terminated()
    assert bench.loads.waiting("fake") == 0
    bench.load_ends()
    assert bench.model.submitted == []


@pytest.mark.parametrize(
    ("rule", "code"), [({"methods": ["metadata"]}, CODES.PERMISSION_DENIED), ({"models": ["x"]}, CODES.NOT_FOUND)]
)
def test_caller_without_permission(bench: Bench, rule: dict[str, Any], code: grpc.StatusCode) -> None:
    """It does not make the server load anything."""
    policy = Policy.model_validate({"rules": [{"principals": ["token:alice"], **rule}]})
    call = FakeCall()
    call.context.principal = "token:alice"
    call.context.permissions = permissions_of("token:alice", policy, QuotaStore(clock=lambda: 0.0))
    bench.infer(call)
    assert (call.ended[0], bench.asked) == (code, [])


def _limited(bench: Bench, **quota: float) -> Callable[[], FakeCall]:
    """Let a caller with ``quota`` call the model, each time that the result is called."""
    policy = Policy.model_validate({"rules": [{"principals": ["token:alice"], "quota": quota}]})
    permissions = permissions_of("token:alice", policy, QuotaStore(clock=lambda: 0.0))

    def call() -> FakeCall:
        call = FakeCall()
        call.method = "/inferd.v1.InferenceService/Infer"
        call.context.principal, call.context.permissions = "token:alice", permissions
        return bench.infer(call)

    return call


def test_caller_whose_quota_is_used_up(bench: Bench) -> None:
    """It does not make the server load anything either."""
    infer = _limited(bench, requests_per_s=1)
    bench.model.state = ModelState.READY
    infer()
    bench.model.state = ModelState.ON_DEMAND
    assert (infer().ended[0], bench.asked) == (CODES.RESOURCE_EXHAUSTED, [])


def test_requests_that_wait_count_as_open(bench: Bench) -> None:
    """For the quota of their caller, until they have gone on, failed or ended; their rows count then."""
    infer = _limited(bench, concurrent_requests=2)
    first, second = infer(), infer()
    assert infer().ended[0] is CODES.RESOURCE_EXHAUSTED
    second.terminated()
    third = infer()
    assert third.ended is None
    bench.load_ends()
    assert len(bench.model.submitted) == 2
    for number, call in enumerate((first, third)):
        bench.model.answer(number)
        call.over()
    assert [infer().ended for _ in range(2)] == [None, None]
    assert infer().ended[0] is CODES.RESOURCE_EXHAUSTED


def test_failed_load_costs_no_quota(bench: Bench) -> None:
    """As for a model that is not available."""
    infer = _limited(bench, requests_per_s=1)
    for _ in range(3):
        call = infer()
        bench.load_ends(ModelState.FAILED, ModelUnavailableError("it is damaged"))
        assert call.ended == (CODES.UNAVAILABLE, "it is damaged")


def test_query_that_needs_the_model(bench: Bench) -> None:
    """It waits too, and is charged to the quota once."""

    def respond(query: oip.ModelMetadataRequest, models: ModelView) -> oip.ModelMetadataResponse:
        signature = models.find(query.name, "").require_signature()
        return oip.ModelMetadataResponse(name=signature.inputs[0].name)

    handler = query_handler(oip.ModelMetadataRequest, respond, bench.registry, bench.statuses, waits=bench.waits)
    rules = {"rules": [{"principals": ["token:alice"], "quota": {"requests_per_s": 1}}]}
    permissions = permissions_of("token:alice", Policy.model_validate(rules), QuotaStore(clock=lambda: 0.0))

    def ask() -> FakeCall:
        call = FakeCall()
        call.method = "/inference.GRPCInferenceService/ModelMetadata"
        call.context.permissions = permissions
        handler.callback(call, oip.ModelMetadataRequest(name="fake").SerializeToString())
        return call

    call = ask()
    assert (call.ended, bench.asked) == (None, ["fake"])
    bench.load_ends()
    assert call.ended == (CODES.OK, "")
    assert ask().ended[0] is CODES.RESOURCE_EXHAUSTED
    assert oip.ModelMetadataResponse.FromString(call.sent[0]).name == "x"


def test_query_that_cannot_wait(bench: Bench) -> None:
    """It fails, and loads nothing."""

    def respond(_: v1.GetModelRequest, models: ModelView) -> v1.GetModelResponse:
        models.find("fake", "").require_signature()
        return v1.GetModelResponse()

    call = FakeCall()
    query_handler(v1.GetModelRequest, respond, bench.registry, bench.statuses).callback(call, b"")
    assert (call.ended, bench.asked) == ((CODES.UNAVAILABLE, "it is cold"), [])


@pytest.mark.parametrize("rows", [2, 4000])
def test_stream_goes_on_when_its_model_is_loaded(streams: StreamBench, rows: int) -> None:
    """From the first request to a cold model on; the next message is not read before."""
    streams.ask("a", "b", "c", rows=rows)
    streams.settle()
    assert (streams.asked, streams.model.submitted, streams.call.reads) == (["fake"], [], 1)
    streams.clock.advance(4.0)
    streams.load_ends()
    streams.settle()
    assert [each.rows for each in streams.model.submitted] == [rows] * 3
    assert streams.call.reads == 2
    for number in range(3):
        streams.model.answer(number)
    streams.settle()
    assert streams.results == [("a", 0), ("b", 0), ("c", 0)]
    assert streams.asked == ["fake"]


def test_stream_whose_load_fails(streams: StreamBench) -> None:
    """That request gets the error, and the next one asks again; the stream stays open."""
    unavailable = CODES.UNAVAILABLE.value[0]
    streams.ask("a", "b")
    streams.load_ends(ModelState.FAILED, ModelUnavailableError("it is damaged"))
    streams.settle()
    assert (streams.results, streams.asked) == ([("a", unavailable)], ["fake", "fake"])
    streams.load_ends()
    streams.settle()
    streams.model.answer(0)
    streams.settle()
    assert streams.results == [("a", unavailable), ("b", 0)]
    assert streams.call.ended is None


def test_stream_of_requests_that_the_load_would_outlast(streams: StreamBench) -> None:
    """However many are in a message, each is refused."""
    streams.expected_s = 60.0
    streams.ask(*map(str, range(1500)))
    streams.settle()
    assert [code for _, code in streams.results] == [CODES.UNAVAILABLE.value[0]] * 1500
    assert (streams.asked, streams.call.reads) == (["fake"], 2)


def test_stream_that_ends_while_it_waits(streams: StreamBench) -> None:
    """Its request is withdrawn."""
    streams.ask("a", "b")
    assert streams.loads.waiting("fake") == 1
    streams.stream.on_terminated()
    streams.settle()
    assert streams.loads.waiting("fake") == 0
    streams.load_ends()
    streams.settle()
    assert streams.model.submitted == []


def test_drain_ends_what_waits(streams: StreamBench) -> None:
    """The call and the stream, which has nothing open then."""
    call = streams.infer()
    streams.ask("a")
    streams.streams.drain()
    streams.waits.drain(ModelUnavailableError("the server is draining"))
    streams.settle()
    assert call.ended == (CODES.UNAVAILABLE, "the server is draining")
    assert streams.results == [("a", CODES.UNAVAILABLE.value[0])]
    assert streams.call.ended == (CODES.UNAVAILABLE, "the server is draining")
