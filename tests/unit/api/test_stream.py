"""Request streams, without a network: reading, answering, ending."""

import grpc
import numpy as np
import pytest

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.api.handler_resources import HandlerResources
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.oip.stream import OpenInferenceStream
from inferd.api.open_streams import OpenStreams
from inferd.api.request_decoder import RequestDecoder
from inferd.api.status import StatusTable
from inferd.api.v1 import stream as v1_stream
from inferd.api.v1.codec import InferenceCodec
from inferd.api.v1.stream import InferenceStream
from inferd.api.wire_scanner import MessageLimits
from inferd.errors import InferenceFailedError, OverloadedError
from inferd.observability.stream_results import listen_for_results
from tests.unit.api.fakes import UNSENDABLE, FakeCall, FakeLargeMessages, FakeModel, FakeRegistry, NoWaits, Soon

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Setup:
    """A new stream of either protocol, and its environment."""

    def __init__(self, *, own=True, metadata=(), streams=None, listener=None):
        self.model = FakeModel()
        self.call = FakeCall(metadata)
        if listener:
            listen_for_results(self.call, listener)
        self.soon = Soon()
        self.large = FakeLargeMessages()
        self.streams = streams or OpenStreams()
        parts = HandlerResources(
            registry=FakeRegistry(self.model),
            statuses=StatusTable(),
            call_soon=self.soon,
            streams=self.streams,
            waits=NoWaits(),
            large_messages=self.large,
            limits=MessageLimits(requests=200),
        )
        make, codec = (InferenceStream, InferenceCodec()) if own else (OpenInferenceStream, OpenInferenceCodec())
        self.stream = make(self.call, RequestDecoder(codec), parts).open()

    def ask(self, *ids, model="fake"):
        """Send one message with a request for each id."""
        requests = [_request(each, model) for each in ids]
        self.stream.on_message(v1.StreamInferRequest(requests=requests).SerializeToString())

    def ask_oip(self, name, model="fake"):
        tensor = oip.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 2])
        request = oip.ModelInferRequest(model_name=model, id=name, inputs=[tensor], raw_input_contents=[b"\0" * 8])
        self.stream.on_message(request.SerializeToString())

    @property
    def results(self):
        """The results of each message that was sent: ids, with the code for errors."""
        return [
            [(r.request_id, r.error.code) if r.HasField("error") else r.request_id for r in message.results]
            for message in map(v1.StreamInferResponse.FromString, self.call.sent)
        ]

    @property
    def answers(self):
        """The id and error message of each answer that was sent."""
        messages = map(oip.ModelStreamInferResponse.FromString, self.call.sent)
        return [(message.infer_response.id, message.error_message) for message in messages]


def _request(request_id, model="fake"):
    x = np.array([[1, 2]], np.float32)
    return v1.InferRequest(
        model=model, request_id=request_id, inputs=[v1.Tensor(name="x", shape=[1, 2], raw=x.tobytes())]
    )


def test_answers_single_request_immediately():
    """The response does not wait for the next turn of the poll thread."""
    setup = Setup()
    setup.ask("a")
    setup.model.answer(0)
    assert setup.results == [["a"]]
    assert setup.soon.waiting == []
    assert setup.call.ended is None


def test_collects_responses_while_requests_are_open():
    """The responses of a batch share a message; the last one is not delayed."""
    setup = Setup()
    setup.ask("a", "b")
    setup.ask("c", "d")
    setup.model.answer(2)
    setup.model.answer(0)
    assert setup.results == []
    setup.soon.run()
    assert setup.results == [["c", "a"]]
    setup.model.answer(1)
    setup.model.answer(3)
    assert setup.results == [["c", "a"], ["b", "d"]]
    setup.soon.run()
    assert len(setup.results) == 2, "a flush with nothing to send sends nothing"


def test_joins_responses_up_to_message_size(monkeypatch):
    """Responses that are ready together share messages of bounded size."""
    setup = Setup()
    setup.ask("one")
    setup.model.answer(0)
    monkeypatch.setattr(v1_stream, "MESSAGE_BYTES", 2 * len(setup.call.sent[0]))
    setup.ask("a11", "b22", "c33", "d44", "e55")
    for number in range(1, 6):
        setup.model.answer(number)
    assert setup.results[1:] == [["a11", "b22"], ["c33", "d44"], ["e55"]]


def test_sends_oversized_response_alone(monkeypatch):
    """A single response cannot be split, and is still sent."""
    monkeypatch.setattr(v1_stream, "MESSAGE_BYTES", 1)
    setup = Setup()
    setup.ask("a", "b")
    setup.model.answer(0)
    setup.model.answer(1)
    assert setup.results == [["a"], ["b"]]


def test_response_has_own_rows_and_timing():
    """The client's own rows, and the timing of its request."""
    setup = Setup()
    setup.ask("a")
    setup.model.answer(0)
    (result,) = v1.StreamInferResponse.FromString(setup.call.sent[0]).results
    response = result.response
    assert (response.model, response.version) == ("fake", "3")
    assert np.frombuffer(response.outputs[0].raw, np.float32).tolist() == [1, 2]
    assert (response.timing.queue_us, response.timing.run_us, response.timing.batch_rows) == (500_000, 250_000, 7)


def test_reads_next_message_when_all_requests_are_released():
    """A message with several requests is one step of flow control."""
    setup = Setup()
    assert setup.call.reads == 1
    setup.model.submit = setup.model.submitted.extend
    setup.ask("a", "b")
    setup.model.submitted[0].reply.release()
    assert setup.call.reads == 1
    setup.model.submitted[1].reply.release()
    assert setup.call.reads == 2


def test_rejected_requests_are_released():
    """An in-band error does not stop the reading."""
    setup = Setup()
    setup.ask("a", "b", model="nobody")
    assert setup.call.reads == 2
    assert setup.results == [[("a", grpc.StatusCode.NOT_FOUND.value[0]), ("b", grpc.StatusCode.NOT_FOUND.value[0])]]
    assert setup.call.ended is None


def test_half_close_waits_for_open_requests():
    """The status follows the last response."""
    setup = Setup()
    setup.ask("a", "b")
    setup.stream.on_half_close()
    setup.model.answer(1)
    assert setup.call.ended is None
    setup.model.answer(0)
    assert [name for message in setup.results for name in message] == ["b", "a"]
    assert setup.call.ended == (grpc.StatusCode.OK, "")


def test_half_close_ends_idle_stream():
    """Without open requests the status is sent at once."""
    setup = Setup()
    setup.stream.on_half_close()
    assert setup.call.ended == (grpc.StatusCode.OK, "")


def test_termination_cancels_open_requests():
    """Later outcomes are dropped."""
    setup = Setup()
    setup.ask("a", "b")
    setup.model.answer(0)
    setup.stream.on_terminated()
    assert [request.reply.done() for request in setup.model.submitted] == [True, True]
    assert setup.model.cancelled == [setup.model.submitted[1]]


def test_drain_answers_open_requests_then_ends():
    """New requests are rejected in-band meanwhile."""
    setup = Setup()
    setup.ask("a", "b")
    setup.streams.drain()
    assert setup.call.ended is None
    setup.ask("late")
    assert len(setup.model.submitted) == 2
    setup.model.answer(0)
    setup.model.answer(1)
    assert [name for message in setup.results for name in message] == [("late", UNAVAILABLE.value[0]), "a", "b"]
    assert setup.call.ended == (UNAVAILABLE, "the server is draining")


def test_stream_opened_while_draining_ends_immediately():
    """Otherwise a drain would not end."""
    streams = OpenStreams()
    streams.drain()
    assert Setup(streams=streams).call.ended == (UNAVAILABLE, "the server is draining")


def test_sends_errors_in_band():
    """Errors of the queue and of the run reach the client unchanged."""
    setup = Setup()
    setup.ask("a", "b")
    setup.model.submitted[0].reply.deliver(OverloadedError("full", retry_after_s=1))
    setup.model.submitted[1].reply.deliver(InferenceFailedError())
    codes = [grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], grpc.StatusCode.INTERNAL.value[0]]
    assert setup.results == [[("a", codes[0]), ("b", codes[1])]]


@pytest.mark.parametrize("message", [b"\xff\xff", b""], ids=["no message", "no request"])
def test_unparsable_message_ends_stream(message):
    """It has no id to be answered by, so the open requests are cancelled too."""
    setup = Setup()
    setup.ask("a")
    setup.stream.on_message(message)
    assert setup.call.ended[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert setup.model.cancelled == setup.model.submitted


def test_encoding_failure_ends_stream():
    """The worker thread goes on, and the client gets a status."""
    setup = Setup()
    setup.ask("a", "b")
    setup.model.submitted[0].reply.deliver(UNSENDABLE)
    assert setup.call.ended == (grpc.StatusCode.INTERNAL, "the model failed to run this request")
    assert setup.model.cancelled == [setup.model.submitted[1]]


def test_counts_and_reports_results():
    """For the access log and for listeners: counts on the call, and each result with its stages."""
    told = []
    setup = Setup(listener=lambda call, result: told.append((call, result)))
    setup.ask("a", "b")
    setup.model.answer(0)
    setup.model.fail(1)
    counts = {name: setup.call.annotations[name] for name in ("requests", "messages_in", "messages_out")}
    assert counts == {"requests": 2, "messages_in": 1, "messages_out": 1}
    assert {call for call, _ in told} == {setup.call}
    results = [result for _, result in told]
    assert [(each.request_id, each.status, each.model, each.rows) for each in results] == [
        ("a", "OK", "fake", 1),
        ("b", "INTERNAL", "fake", 1),
    ]
    assert results[1].error == "the model failed to run this request"
    assert [name for name, _ in results[0].stages.durations_s()] == ["decode", "queue", "stack", "run", "encode"]
    assert [name for name, _ in results[1].stages.durations_s()] == ["decode", "queue", "stack", "run"]
    assert results[1].stages.durations_s()[-1] == ("run", 0.125)


def test_reports_results_of_unknown_models():
    """Without a model and without a decode stage."""
    told = []
    setup = Setup(listener=lambda call, result: told.append(result))
    setup.ask("a", model="nobody")
    assert [(each.status, each.model, each.stages.durations_s()) for each in told] == [("NOT_FOUND", "", [])]


def test_oip_responses_keep_request_order():
    """A response waits for older ones, and an error takes its place in the order."""
    setup = Setup(own=False)
    setup.ask_oip("a")
    setup.ask_oip("b")
    setup.ask_oip("c", model="nobody")
    setup.ask_oip("d")
    setup.model.answer(1)
    setup.soon.run()
    assert setup.answers == []
    setup.model.answer(0)
    setup.soon.run()
    assert setup.answers == [("a", ""), ("b", ""), ("c", 'there is no model "nobody"')]
    setup.model.answer(2)
    assert setup.answers[-1] == ("d", "")


def test_oip_stream_ends_at_first_error_on_request():
    """If the client asks for it; the other open requests are cancelled."""
    setup = Setup(own=False, metadata=(("triton_grpc_error", "true"),))
    setup.ask_oip("a")
    setup.ask_oip("b", model="nobody")
    assert setup.call.ended[0] is grpc.StatusCode.NOT_FOUND
    assert setup.model.cancelled == setup.model.submitted


def _large(size):
    """A request with an unknown field of ``size`` bytes, so that it has no template."""
    request = _request("large").SerializeToString()
    return request + b"\x7a" + wire.varint(size) + bytes(size)


def test_submits_message_in_slices():
    """The poll thread serves others in between; order is kept, and the next message is read after the last slice."""
    setup = Setup()
    setup.ask(*map(str, range(150)))
    sizes = [len(setup.model.submitted)]
    while setup.soon.waiting:
        setup.soon.run()
        sizes.append(len(setup.model.submitted))
    assert sizes[0] == 64
    assert sizes[-1] == 150
    assert setup.call.reads == 2
    for position in range(150):
        setup.model.answer(position)
    setup.soon.run()
    assert [name for message in setup.results for name in message] == list(map(str, range(150)))


def test_drain_answers_whole_message():
    """Requests of the message that are not open yet are answered too."""
    setup = Setup()
    setup.ask(*map(str, range(100)))
    for position in range(64):
        setup.model.answer(position)
    setup.stream.drain()
    assert setup.call.ended is None
    while setup.soon.waiting:
        setup.soon.run()
    assert setup.call.ended[0] is UNAVAILABLE
    assert sum(map(len, setup.results)) == 100


def test_too_many_requests_end_stream():
    """None of them is submitted."""
    setup = Setup()
    setup.ask(*map(str, range(201)))
    assert setup.call.ended[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 200" in setup.call.ended[1]
    assert setup.model.submitted == []


def test_large_request_is_decoded_by_other_thread_in_order():
    """Later requests wait for it, earlier ones do not."""
    setup = Setup()
    contents = [_request("a").SerializeToString(), _large(20_000), _request("b").SerializeToString()]
    setup.stream.on_message(b"".join(wire.field(0x0A, content) for content in contents))
    assert len(setup.model.submitted) == 1
    setup.large.work.run()
    assert len(setup.model.submitted) == 1
    setup.soon.run()
    assert len(setup.model.submitted) == 3
    for position in range(3):
        setup.model.answer(position)
    setup.soon.run()
    assert setup.results == [["a", "large", "b"]]


def test_ended_stream_submits_no_more_requests():
    """Neither the request being decoded nor later ones."""
    setup = Setup()
    contents = [_large(20_000), _request("b").SerializeToString()]
    setup.stream.on_message(b"".join(wire.field(0x0A, content) for content in contents))
    setup.stream.on_terminated()
    setup.large.work.run()
    setup.soon.run()
    assert setup.model.submitted == []


def test_malformed_large_request_ends_stream():
    """As a small one that cannot be parsed."""
    setup = Setup()
    setup.stream.on_message(wire.field(0x0A, _large(20_000)[:-1]))
    setup.large.work.run()
    assert setup.call.ended[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_large_lists_are_encoded_by_other_thread():
    """Each element takes a step of Python."""
    setup = Setup()
    tensor = v1.Tensor(name="x", floats=[0.5] * 5000)
    request = v1.InferRequest(model="fake", request_id="a", inputs=[tensor])
    setup.stream.on_message(v1.StreamInferRequest(requests=[request]).SerializeToString())
    setup.large.work.run()
    setup.soon.run()
    setup.model.answer(0)
    assert setup.results == []
    setup.large.work.run()
    assert setup.results == [["a"]]
