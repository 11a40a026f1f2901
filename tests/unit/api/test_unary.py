"""Unary inference, without a network."""

import math
from time import monotonic

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd.api.request_decoder import RequestDecoder
from inferd.api.status import StatusTable
from inferd.api.unary import UnaryInference
from inferd.api.v1.codec import InferenceCodec
from inferd.batching.request import BatchTiming
from inferd.config.settings import ModelSettings
from inferd.errors import DeadlineExceededError
from inferd.observability import timing
from tests.unit.api.fakes import UNSENDABLE, FakeCall, FakeLargeMessages, FakeModel, FakeRegistry, NoWaits
from tests.unit.call_context import known


@pytest.fixture
def model():
    """A model that answers when the test says."""
    return FakeModel()


def _ask(fake, call=None, **fields):
    call = call or FakeCall()
    x = np.array([[1, 2], [3, 4]], np.float32)
    request = v1.InferRequest(
        **{"model": "fake", "inputs": [v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())], **fields}
    )
    large = FakeLargeMessages()
    UnaryInference(RequestDecoder(InferenceCodec()), FakeRegistry(fake), StatusTable(), large, NoWaits())(
        call, request.SerializeToString()
    )
    large.work.run()
    large.call_soon.run()
    return call


def test_response_is_sent_when_reply_settles(model):
    """The call then has its message and the facts for its log line."""
    call = _ask(model, request_id="mine")
    assert call.ended is None
    model.answer(0)
    response = v1.InferResponse.FromString(call.sent[0])
    assert response.request_id == "mine"
    assert np.frombuffer(response.outputs[0].raw, np.float32).tolist() == [1, 2, 3, 4]
    assert known(call.context) == {
        "request_id": "mine",
        "model": "fake",
        "version": "3",
        "rows": 2,
        "queue_s": 0.5,
        "batch": BatchTiming(started_at=0.0, stack_s=0.001, run_s=0.25, rows=7),
    }


def test_records_stages_on_request(model):
    """Up to the last stage that the request reached."""
    call = FakeCall()
    stages = timing.measure(call.annotations)
    _ask(model, call)
    assert [name for name, _ in stages.durations_s()] == ["decode"]
    model.answer(0)
    durations = dict(stages.durations_s())
    assert list(durations) == ["decode", "queue", "stack", "run", "encode"]
    assert (durations["queue"], durations["stack"], durations["run"]) == (0.5, 0.001, 0.25)


def test_failed_run_has_timing(model):
    """For the log, and as stages if requested; nothing was encoded."""
    plain, call = _ask(model), FakeCall()
    stages = timing.measure(call.annotations)
    _ask(model, call)
    for position, each in enumerate((plain, call)):
        model.fail(position)
        assert each.ended[0] is grpc.StatusCode.INTERNAL
        assert (each.context.queue_s, each.context.batch.run_s) == (0.5, 0.125)
    assert stages.durations_s()[1:] == [("queue", 0.5), ("stack", 0.0), ("run", 0.125)]


def test_request_carries_call_id(model):
    """Generated if there is none; the id in the message is kept beside one in the metadata."""
    call = FakeCall()
    call.context.request_id = "sent"
    _ask(model, call, request_id="mine")
    assert call.annotations["own_id"] == "mine"
    other = _ask(model)
    assert [request.reply.request_id for request in model.submitted] == ["sent", other.context.request_id]


def test_answers_lists_with_lists(model):
    """A response has the form of its request."""
    call = _ask(model, inputs=[v1.Tensor(name="x", floats=[0.5, 0.1])])
    model.answer(0)
    assert list(v1.InferResponse.FromString(call.sent[0]).outputs[0].floats) == [0.5, 0.1]


def test_errors_end_call(model):
    """Before the queue and after it."""
    assert _ask(model, model="nobody").ended == (grpc.StatusCode.NOT_FOUND, 'there is no model "nobody"')
    call = _ask(model)
    model.submitted[0].reply.deliver(DeadlineExceededError("late"))
    assert call.ended == (grpc.StatusCode.DEADLINE_EXCEEDED, "late")


def test_ended_call_cancels_request(model):
    """So that it does not run."""
    call = _ask(model)
    call.terminated()
    assert model.cancelled == model.submitted


def test_encoding_failure_is_internal_error(model):
    """The thread that settles the reply continues."""
    call = _ask(model)
    model.submitted[0].reply.deliver(UNSENDABLE)
    assert call.ended == (grpc.StatusCode.INTERNAL, "the model failed to run this request")


@pytest.mark.parametrize(
    ("call_deadline_s", "timeout_s", "expected_s"),
    [
        (None, None, 30),
        (5, None, 5),
        (100, None, 100),
        (5, 2, 2),
        (5, 9, 5),
        (None, 60, 60),
    ],
)
def test_earlier_of_deadline_and_timeout_applies(model, call_deadline_s, timeout_s, expected_s):
    """The model's default applies only without both."""
    call = FakeCall()
    fields = {} if timeout_s is None else {"timeout": {"seconds": timeout_s}}
    _ask(model, **fields)
    received_at = model.submitted[0].received_at
    call.deadline = math.inf if call_deadline_s is None else received_at + call_deadline_s
    _ask(model, call, **fields)
    is_the_call_s = expected_s == call_deadline_s
    expected = call.deadline if is_the_call_s else model.submitted[1].received_at + expected_s
    assert model.submitted[1].deadline == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize(
    ("priority", "call_deadline_s", "timeout_s", "expected_s"),
    [
        (1, None, None, 4),
        (1, None, 9, 9),
        (2, None, None, 30),
        (2, None, 9, 9),
        (3, None, None, 4),
        (3, None, 9, 4),
        (3, 9, None, 4),
        (3, 2, None, 2),
    ],
)
def test_timeouts_of_priorities(model, priority, call_deadline_s, timeout_s, expected_s):
    """Each may have a default of its own, and one that requests cannot change."""
    own = {1: {"default_timeout_ms": 4000}, 3: {"default_timeout_ms": 4000, "allow_timeout_override": False}}
    model.settings = ModelSettings.model_validate({"queue": {"by_priority": own}})
    fields = {} if timeout_s is None else {"timeout": {"seconds": timeout_s}}
    call = FakeCall()
    call.deadline = math.inf if call_deadline_s is None else monotonic() + call_deadline_s
    _ask(model, call, priority=priority, **fields)
    request = model.submitted[0]
    expected = call.deadline if expected_s == call_deadline_s else request.received_at + expected_s
    assert request.deadline == pytest.approx(expected, abs=0.001)


def test_default_timeout_that_holds_for_all_requests(model):
    """Also with 0, which is none; the deadline of the call holds in any case."""
    for timeout_ms, expected_s in ((4000.0, 4.0), (0.0, math.inf)):
        queue = {"default_timeout_ms": timeout_ms, "allow_timeout_override": False}
        model.settings = ModelSettings.model_validate({"queue": queue})
        _ask(model, timeout={"seconds": 2})
        request = model.submitted[-1]
        assert request.deadline == request.received_at + expected_s


@pytest.mark.parametrize(("given", "expected"), [(0, 2), (1, 1), (3, 3)])
def test_priority_0_is_default(model, given, expected):
    """0 is the model's default."""
    _ask(model, priority=given)
    assert model.submitted[0].priority == expected


def _unary(model):
    large = FakeLargeMessages()
    return large, UnaryInference(RequestDecoder(InferenceCodec()), FakeRegistry(model), StatusTable(), large, NoWaits())


def _message(rows):
    x = np.zeros((rows, 2), np.float32)
    return v1.InferRequest(
        model="fake", inputs=[v1.Tensor(name="x", shape=x.shape, raw=x.tobytes())]
    ).SerializeToString()


def test_other_thread_decodes_large_messages_until_cached(model):
    """The poll thread submits them; later ones match the cached template and are as cheap as small ones."""
    large, unary = _unary(model)
    unary(FakeCall(), _message(4000))
    assert model.submitted == []
    large.work.run()
    assert model.submitted == []
    large.call_soon.run()
    assert model.submitted[0].rows == 4000
    unary(FakeCall(), _message(4000))
    assert len(model.submitted) == 2


def test_large_message_of_ended_call_is_not_decoded(model):
    """It has no caller."""
    large, unary = _unary(model)
    call = FakeCall()
    unary(call, _message(4000))
    call.finish(grpc.StatusCode.CANCELLED)
    large.work.run()
    assert large.call_soon.waiting == []


def test_rejects_malformed_or_too_many_large_messages(model):
    """Each with its status."""
    large, unary = _unary(model)
    wrong, late = FakeCall(), FakeCall()
    unary(wrong, _message(4000)[:-1])
    large.work.run()
    assert wrong.ended[0] is grpc.StatusCode.INVALID_ARGUMENT
    large.full = True
    unary(late, _message(4000))
    assert late.ended[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_other_thread_encodes_large_lists(model):
    """Each element takes a step of Python."""
    large, unary = _unary(model)
    call = FakeCall()
    tensor = v1.Tensor(name="x", floats=[0.5] * 5000)
    unary(call, v1.InferRequest(model="fake", inputs=[tensor]).SerializeToString())
    large.work.run()
    large.call_soon.run()
    model.answer(0)
    assert call.sent == []
    large.work.run()
    assert len(v1.InferResponse.FromString(call.sent[0]).outputs[0].floats) == 5000
