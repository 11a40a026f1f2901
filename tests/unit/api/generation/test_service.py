"""``GenerationService``, without a network."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.api.request_decoder import LARGE_BYTES
from inferd.api.v1.generation import GenerationService
from inferd.errors import DeadlineExceededError, NotAuthenticatedError, OverloadedError
from inferd.generation.request import Candidate, Delta, FinishReason, Sampling, TokenLogprobs
from tests.unit.api.generation.fakes import Bench, FakeLanguageModel, StreamingCall

CODES = grpc.StatusCode


class Service(Bench):
    """The service, and what one caller gets from it."""

    def __init__(self, model: FakeLanguageModel | None = None, **limits: int) -> None:
        super().__init__(model, **limits)
        self.handlers = GenerationService(self.resources).handlers()

    def generate(self, prompt: pb.Prompt | None = None, **fields: Any) -> StreamingCall:
        self.call = StreamingCall()
        prompt = prompt or pb.Prompt(text="once")
        self.send(pb.GenerateRequest(model="story", prompt=prompt, **fields).SerializeToString())
        return self.call

    def send(self, message: bytes) -> None:
        self.handlers["Generate"].callback(self.call, message)

    def tokenize(self, **form: Any) -> StreamingCall:
        call = StreamingCall()
        call.method = "/inferd.v1.GenerationService/Tokenize"
        request = pb.TokenizeRequest(model="story", prompt=pb.Prompt(**form))
        self.handlers["Tokenize"].callback(call, request.SerializeToString())
        return call

    @property
    def responses(self) -> list[pb.GenerateResponse]:
        return list(map(pb.GenerateResponse.FromString, self.call.sent))


def test_streams_each_delta() -> None:
    """The first response has model and version, the last one the finish reason and the usage."""
    service = Service()
    service.generate(request_id="mine")
    service.engine.generate(" upon")
    service.engine.generate(" a")
    service.engine.finish(" time", reason=FinishReason.LENGTH)
    first, middle, last = service.responses
    assert (first.model, first.version, first.request_id, first.text) == ("story", "3", "mine", " upon")
    assert (middle.model, middle.version, middle.request_id, middle.text) == ("", "", "", " a")
    assert bytes(last.token_ids) == b" time"
    assert last.finish_reason == pb.FinishReason.FINISH_REASON_LENGTH
    assert (last.usage.prompt_tokens, last.usage.generated_tokens) == (4, 7)
    assert (last.usage.queue_time, last.usage.first_token_time) == (
        Duration(nanos=250000000),
        Duration(nanos=500000000),
    )
    assert not first.HasField("usage")
    assert service.call.ended == (CODES.OK, "")
    assert service.call.context.request_id == "mine"


def test_all_fields_reach_the_engine() -> None:
    """Set fields reach the request, and unset ones are the defaults."""
    service = Service()
    service.generate(
        pb.Prompt(token_ids=pb.TokenIds(ids=[1, 2, 255])),
        sampling=pb.Sampling(
            temperature=0.5,
            top_k=3,
            top_p=0.25,
            min_p=0.125,
            seed=2**64 - 1,
            repetition_penalty=1.5,
            frequency_penalty=-1,
            presence_penalty=2,
        ),
        max_tokens=9,
        stop=pb.StopConditions(texts=["a", "b"], token_ids=[7], ignore_end_tokens=True, min_tokens=2),
        logprobs=0,
        priority=3,
        timeout=Duration(seconds=5),
    )
    (request,) = service.engine.submitted
    assert request.prompt.tolist() == [1, 2, 255]
    assert request.sampling == Sampling(
        temperature=0.5,
        top_k=3,
        top_p=0.25,
        min_p=0.125,
        seed=2**64 - 1,
        repetition_penalty=1.5,
        frequency_penalty=-1,
        presence_penalty=2,
    )
    assert (request.stops.strings, request.stops.token_ids, request.stops.min_tokens) == (("a", "b"), {7}, 2)
    assert (request.max_tokens, request.top_logprobs, request.priority) == (9, 0, 3)
    assert request.deadline == request.received_at + 5


def test_chats_are_rendered() -> None:
    """The prompt of a chat is what the model's template makes of it."""
    service = Service()
    messages = [pb.ChatMessage(role="user", content="hi"), pb.ChatMessage(role="assistant")]
    service.generate(pb.Prompt(chat=pb.Chat(messages=messages)))
    assert bytes(service.engine.submitted[0].prompt.tolist()) == b"<user>hi<assistant>"


def test_log_probabilities() -> None:
    """Each token has its bytes, which need not be UTF-8."""
    service = Service()
    service.generate(logprobs=1)
    chosen, best = Candidate(195, b"\xc3", -1.5), Candidate(65, b"A", -0.5)
    service.engine.submitted[0].receiver.on_delta(
        Delta(token_ids=[195], logprobs=[TokenLogprobs(chosen=chosen, top=[best])])
    )
    (logprobs,) = service.responses[0].logprobs
    assert (logprobs.chosen.token_id, logprobs.chosen.token, logprobs.chosen.logprob) == (195, b"\xc3", -1.5)
    assert [(each.token_id, each.token) for each in logprobs.top] == [(65, b"A")]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": pb.Prompt()}, "prompt: expected text, token_ids or chat, got none"),
        (
            {"prompt": pb.Prompt(text="x" * 65)},
            "prompt.text: expected at most 63 tokens, as the context has 64",
        ),
        (
            {"prompt": pb.Prompt(token_ids=pb.TokenIds(ids=[256]))},
            "prompt.token_ids: expected tokens from 0 to 255",
        ),
        ({"prompt": pb.Prompt(chat=pb.Chat())}, "prompt.chat: expected 1 to 1024 messages, got 0"),
        ({"sampling": pb.Sampling(temperature=3)}, "sampling.temperature: expected 0 to 2, got 3"),
        ({"stop": pb.StopConditions(texts=[""])}, "stop.texts: expected texts of 1 to 1024 bytes, got 0"),
        ({"stop": pb.StopConditions(min_tokens=99)}, "stop.min_tokens: expected at most 60, as max_tokens, got 99"),
        ({"timeout": Duration(seconds=-1)}, "timeout: expected 0 or more seconds, got -1"),
        ({"priority": 77}, "priority: expected 1 (first)"),
    ],
)
def test_errors_name_the_field(fields: dict[str, Any], message: str) -> None:
    """By its path in the protocol."""
    service = Service()
    code, details = service.generate(**fields).ended
    assert (code, details[: len(message)]) == (CODES.INVALID_ARGUMENT, message)


def test_malformed_message_ends_the_call() -> None:
    """A message that is no protobuf is an invalid argument."""
    service = Service()
    service.send(b"\xff")
    assert service.call.ended[0] is CODES.INVALID_ARGUMENT


def test_limits_the_fields_of_a_message() -> None:
    """A message with too many fields is rejected before it is parsed."""
    service = Service(elements=10)
    assert "at most 10 elements" in service.generate(pb.Prompt(token_ids=pb.TokenIds(ids=[1] * 11))).ended[1]


def test_large_messages_are_read_by_another_thread() -> None:
    """Errors about them come from that thread, too."""
    service = Service()
    service.generate(pb.Prompt(token_ids=pb.TokenIds(ids=[255] * LARGE_BYTES)))
    assert service.call.ended is None
    service.large.work.run()
    service.soon.run()
    assert "at most 63 tokens" in service.call.ended[1]
    service.generate(pb.Prompt(text="x" * LARGE_BYTES), timeout=Duration(seconds=-1))
    service.large.work.run()
    service.soon.run()
    assert "timeout" in service.call.ended[1]


def test_rejected_request_has_the_status_of_its_error() -> None:
    """The status is that of the error of the engine."""
    service = Service()
    service.engine.rejection = OverloadedError("the queue is full", retry_after_s=1.0)
    assert service.generate().ended == (CODES.RESOURCE_EXHAUSTED, "the queue is full")
    assert service.call.sent == []


def test_status_comes_after_the_tokens() -> None:
    """Also after tokens that waited for the caller to read."""
    service = Service()
    service.generate()
    service.call.reads_answers = False
    for _ in range(20):
        service.engine.generate("a")
    service.engine.fail(DeadlineExceededError("too late"))
    service.call.ended = None
    service.call.catch_up()
    assert "".join(response.text for response in service.responses) == "a" * 20


def test_cancelled_call_ends_the_generation() -> None:
    """The engine gets the cancel at once."""
    service = Service()
    service.generate()
    service.call.terminated()
    assert len(service.engine.cancelled) == 1


def test_expired_credential_ends_the_call() -> None:
    """Another thread ends the call, and the poll thread cancels the generation."""
    service = Service()
    service.call.context.principal = "alice"
    service.send(pb.GenerateRequest(model="story", prompt=pb.Prompt(text="x")).SerializeToString())
    service.call.annotations["end_stream"](NotAuthenticatedError("expired"))
    assert service.call.ended == (CODES.UNAUTHENTICATED, "expired")
    assert service.engine.cancelled == []
    service.soon.run()
    assert len(service.engine.cancelled) == 1


def test_tokenizes_each_form() -> None:
    """The response has the token ids and the text that was tokenized."""
    service = Service()
    (message,) = service.tokenize(text="ab").sent
    assert pb.TokenizeResponse.FromString(message) == pb.TokenizeResponse(
        model="story", version="3", token_ids=[97, 98], text="ab"
    )
    (message,) = service.tokenize(chat=pb.Chat(messages=[pb.ChatMessage(role="u", content="x")])).sent
    response = pb.TokenizeResponse.FromString(message)
    assert (response.text, bytes(response.token_ids)) == ("<u>x", b"<u>x")
    (message,) = service.tokenize(token_ids=pb.TokenIds(ids=[1])).sent
    assert pb.TokenizeResponse.FromString(message).token_ids == [1]


def test_tokenizes_long_texts_in_another_thread() -> None:
    """That thread answers, too."""
    service = Service()
    call = service.tokenize(text="x" * 5000)
    assert call.sent == []
    service.large.work.run()
    assert len(pb.TokenizeResponse.FromString(call.sent[0]).token_ids) == 5000


def test_tokenize_errors_name_the_field() -> None:
    """By its path in the protocol."""
    service = Service(FakeLanguageModel(has_text=False))
    code, details = service.tokenize(text="ab").ended
    assert code is CODES.INVALID_ARGUMENT
    assert details == 'prompt.text: expected token ids, as model "story" has no tokenizer'
    service.model.language = None
    assert "no language model" in service.tokenize(text="ab").ended[1]
