"""Language models on ``ModelStreamInfer`` and ``ModelInfer``, without a network."""

import gc
import weakref
from typing import Any

import grpc
import numpy as np
import pytest

from inferd._generated.inference import grpc_service_pb2 as pb
from inferd.api.model_waits import Waited
from inferd.api.oip.codec import OpenInferenceCodec
from inferd.api.oip.generation import UnaryGenerations
from inferd.api.oip.stream import OpenInferenceStream
from inferd.api.request_decoder import RequestDecoder
from inferd.api.unary import UnaryInference
from inferd.errors import ColdModelError, DeadlineExceededError, OverloadedError
from inferd.generation.request import FinishReason
from inferd.observability.stream_results import StreamResult, listen_for_results
from tests.unit.api.fakes import FakeModel
from tests.unit.api.generation.fakes import Bench, StreamingCall

CODES = grpc.StatusCode


def _text(name: str, value: str) -> tuple[str, str, list[int], bytes]:
    encoded = value.encode()
    return name, "BYTES", [1], len(encoded).to_bytes(4, "little") + encoded


def _flag(name: str) -> tuple[str, str, list[int], bytes]:
    return name, "BOOL", [1], b"\1"


def _request(name: str, *inputs: tuple[str, str, list[int], bytes], model: str = "story", **fields: Any) -> bytes:
    request = pb.ModelInferRequest(model_name=model, id=name, **fields)
    for tensor, datatype, shape, raw in inputs:
        request.inputs.add(name=tensor, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)
    return request.SerializeToString()


def _texts(response: pb.ModelInferResponse) -> dict[str, str]:
    """Return the text of each output."""
    contents = zip(response.outputs, response.raw_output_contents, strict=True)
    return {output.name: raw[4:].decode() for output, raw in contents}


class Stream(Bench):
    """A stream to a language model, and to an ordinary one."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__()
        self.other = FakeModel()
        get = self.registry.get
        self.registry.get = lambda name, version="": self.other if name == "fake" else get(name, version)
        self.call = StreamingCall(metadata)
        self.call.method = "/inference.GRPCInferenceService/ModelStreamInfer"
        self.results: list[StreamResult] = []
        listen_for_results(self.call, lambda _, result: self.results.append(result))
        self.stream = OpenInferenceStream(self.call, RequestDecoder(OpenInferenceCodec()), self.resources).open()

    def ask(self, name: str, *more: tuple[str, str, list[int], bytes], streams: bool = True, **fields: Any) -> None:
        inputs = [_text("text_input", "once"), *([_flag("stream")] if streams else []), *more]
        self.stream.on_message(_request(name, *inputs, **fields))

    def ask_other(self, name: str) -> None:
        self.stream.on_message(_request(name, ("x", "FP32", [1, 2], bytes(8)), model="fake"))

    @property
    def responses(self) -> list[pb.ModelStreamInferResponse]:
        return list(map(pb.ModelStreamInferResponse.FromString, self.call.sent))

    @property
    def got(self) -> list[tuple[str, str, bool]]:
        """The id, the text or error, and the mark of each response."""
        found = []
        for each in self.responses:
            response = each.infer_response
            final = response.parameters["triton_final_response"].bool_param
            found.append((response.id, each.error_message or _texts(response).get("text_output", ""), final))
        return found


def test_streams_each_delta() -> None:
    """The last response is marked as final."""
    stream = Stream()
    stream.ask("7")
    stream.engine.generate(" upon")
    stream.engine.finish(" a")
    assert stream.got == [("7", " upon", False), ("7", " a", True)]
    response = stream.responses[0].infer_response
    assert (response.model_name, response.model_version) == ("story", "3")
    assert stream.call.reads == 2


def test_without_stream_the_answer_is_one_response() -> None:
    """It begins with the prompt, as in Triton."""
    stream = Stream()
    stream.ask("7", streams=False)
    stream.engine.generate(" upon")
    assert stream.got == []
    stream.engine.finish(" a")
    assert stream.got == [("7", "once upon a", True)]


def test_several_requests_share_a_stream() -> None:
    """Responses come as they are generated, also those of a later request to an ordinary model."""
    stream = Stream()
    stream.ask("1")
    stream.ask_other("2")
    stream.ask("3")
    stream.engine.generate("a", 0)
    stream.engine.generate("x", 1)
    stream.other.answer(0)
    stream.soon.run()
    stream.engine.finish("y", 1)
    stream.soon.run()
    stream.engine.finish("b", 0)
    stream.soon.run()
    assert stream.got == [
        ("1", "a", False),
        ("3", "x", False),
        ("2", "", True),
        ("3", "y", True),
        ("1", "b", True),
    ]


def test_stream_ends_when_all_is_generated() -> None:
    """After the half-close of the caller, the stream stays open until the last response."""
    stream = Stream()
    stream.ask("1")
    stream.stream.on_half_close()
    assert stream.call.ended is None
    stream.engine.finish("a")
    assert stream.call.ended == (CODES.OK, "")


def test_drain_finishes_running_generations() -> None:
    """New requests are rejected."""
    stream = Stream()
    stream.ask("1")
    stream.stream.drain()
    stream.ask("2")
    stream.engine.finish("a")
    assert sorted(stream.got) == [("1", "a", True), ("2", "the server is draining", False)]
    assert stream.call.ended == (CODES.UNAVAILABLE, "the server is draining")


def test_errors_come_in_the_stream() -> None:
    """An error is a response, after which the stream continues."""
    stream = Stream()
    stream.ask("1", ("text_input", "BYTES", [1], b""))
    stream.ask("2", _text("sampling_parameters", '{"temperature": 9}'))
    stream.ask("3", parameters={"priority": pb.InferParameter(int64_param=99)})
    stream.ask("4")
    stream.engine.generate("a")
    stream.engine.fail(DeadlineExceededError("too late"))
    stream.soon.run()
    assert [(name, text[:50]) for name, text, _ in stream.got] == [
        ("1", 'input "text_input": expected once, got it again'),
        ("2", "sampling_parameters.temperature: expected 0 to 2, "),
        ("3", "priority: expected 1 (first) to 3, 4 for a scaveng"),
        ("4", "a"),
        ("4", "too late"),
    ]
    assert stream.call.ended is None


def test_error_ends_the_stream_if_the_caller_wants_that() -> None:
    """Triton's clients can ask for it by a header."""
    stream = Stream((("triton_grpc_error", "true"),))
    stream.ask("1")
    stream.ask("2", model="none")
    assert stream.call.ended[0] is CODES.NOT_FOUND
    stream.soon.run()
    assert len(stream.engine.cancelled) == 1


def test_cancelled_stream_ends_its_generations() -> None:
    """All generations of a cancelled stream are cancelled."""
    stream = Stream()
    stream.ask("1")
    stream.ask("2")
    stream.stream.on_terminated()
    stream.soon.run()
    assert set(stream.engine.cancelled) == set(stream.engine.submitted)


def test_next_message_is_read_when_a_request_is_settled() -> None:
    """While a long text is tokenized, only its own stream waits."""
    stream = Stream()
    stream.stream.on_message(_request("1", _text("text_input", "x" * 3000)))
    assert stream.call.reads == 1
    stream.large.work.run()
    stream.soon.run()
    assert stream.call.reads == 2
    assert "at most 63 tokens" in stream.got[0][1]


def test_caller_that_does_not_read_gets_fewer_messages() -> None:
    """Together they have the same text."""
    stream = Stream()
    stream.ask("1")
    stream.call.reads_answers = False
    for number in range(20):
        stream.engine.generate(str(number % 10))
    stream.engine.finish("!")
    stream.call.catch_up()
    assert len(stream.got) == 9
    assert "".join(text for _, text, _ in stream.got) == "01234567890123456789!"


def test_each_request_of_a_stream_has_its_own_record() -> None:
    """Logs and traces have tokens and finish reason of each request."""
    stream = Stream()
    stream.ask("1")
    stream.engine.finish("abc")
    stream.ask("2", model="none")
    good, bad = stream.results
    assert (good.request_id, good.status, good.model, good.generated.tokens) == ("1", "OK", "story", 3)
    assert (bad.status, bad.generated) == ("NOT_FOUND", None)


def test_nothing_of_a_request_waits_for_the_garbage_collector() -> None:
    """A stream may have any number of requests, whose memory is freed when each ends."""
    stream = Stream()
    gc.disable()
    try:
        for name, ends in (("1", True), ("2", False)):
            stream.ask(name)
            prompt = weakref.ref(stream.engine.submitted[-1].prompt)
            if ends:
                stream.engine.finish("a")
            else:
                stream.engine.fail(DeadlineExceededError("too late"))
            stream.engine.submitted.clear()
            stream.soon.run()
            assert prompt() is None
    finally:
        gc.enable()


class Unary(Bench):
    """Unary calls to a language model."""

    def __init__(self) -> None:
        super().__init__()
        self.handler = UnaryInference(
            RequestDecoder(OpenInferenceCodec()),
            self.registry,
            self.resources.statuses,
            self.large,
            self.waits,
            UnaryGenerations(self.resources).begin,
        )

    def ask(self, *inputs: tuple[str, str, list[int], bytes], **fields: Any) -> StreamingCall:
        self.call = StreamingCall()
        self.call.method = "/inference.GRPCInferenceService/ModelInfer"
        self.handler(self.call, _request("mine", *inputs, **fields))
        return self.call

    @property
    def response(self) -> pb.ModelInferResponse:
        (message,) = self.call.sent
        return pb.ModelInferResponse.FromString(message)


def test_unary_call_gets_the_whole_answer() -> None:
    """Unlike Triton, which rejects unary calls to such models."""
    unary = Unary()
    unary.ask(_text("text_input", "once"), _flag("exclude_input_in_output"), _flag("return_finish_reason"))
    unary.engine.generate(" upon")
    unary.engine.finish(" a", reason=FinishReason.LENGTH)
    assert _texts(unary.response) == {"text_output": " upon a", "finish_reason": "length"}
    assert (unary.response.id, unary.response.model_name) == ("mine", "story")
    assert unary.call.context.request_id == "mine"


def test_unary_call_with_tokens() -> None:
    """A call with token ids gets token ids."""
    unary = Unary()
    unary.ask(("input_ids", "INT64", [2], np.array([5, 6], np.int64).tobytes()))
    assert unary.engine.submitted[0].prompt.tolist() == [5, 6]
    unary.engine.finish("ab")
    assert np.frombuffer(unary.response.raw_output_contents[1], np.int64).tolist() == [97, 98]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([("x", "FP32", [1], bytes(4))], 'input "x": expected one of "text_input", "input_ids"'),
        ([("text_input", "BYTES", [2], bytes(8))], 'input "text_input": expected one element, got 2'),
        ([_text("text_input", "x" * 64)], "text_input: expected at most 63 tokens"),
    ],
)
def test_unary_errors(inputs: list[Any], message: str) -> None:
    """The call ends with the status of the error."""
    code, details = Unary().ask(*inputs).ended
    assert code is CODES.INVALID_ARGUMENT
    assert details[: len(message)] == message


def test_unary_call_is_refused_and_cancelled() -> None:
    """It ends with the status of the engine's error, and a cancel reaches the engine."""
    unary = Unary()
    unary.engine.rejection = OverloadedError("full", retry_after_s=1.0)
    assert unary.ask(_text("text_input", "x")).ended == (CODES.RESOURCE_EXHAUSTED, "full")
    unary.engine.rejection = None
    unary.ask(_text("text_input", "x")).terminated()
    assert unary.engine.cancelled == unary.engine.submitted[1:]


def test_large_unary_call_is_read_by_another_thread() -> None:
    """Its text is tokenized in that thread, too."""
    unary = Unary()
    unary.ask(_text("text_input", "x" * 20_000))
    for _ in range(2):
        unary.large.work.run()
        unary.large.call_soon.run()
        unary.soon.run()
    assert "at most 63 tokens" in unary.call.ended[1]


def test_unary_call_waits_for_a_cold_model() -> None:
    """Its deadline counts from its arrival."""
    unary = Unary()
    get = unary.registry.get

    def cold(name: str, version: str = "") -> object:
        raise ColdModelError("cold", model=name, version="3")

    unary.registry.get = cold
    unary.ask(_text("text_input", "x"))
    unary.registry.get = get
    unary.waits.waiting[0]["go_on"](Waited(5.0, loads=1, load_s=2.0))
    assert unary.engine.submitted[0].received_at == 5.0
