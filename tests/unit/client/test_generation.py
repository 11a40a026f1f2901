"""Text of language models, with either client."""

import asyncio
import gc
import threading
from contextlib import aclosing

import grpc
import numpy as np
import pytest

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    FinishReason,
    GenerationInfo,
    GenerationUsage,
    Internal,
    Overloaded,
    RetryPolicy,
    TokenLogprob,
    TokenLogprobs,
    Unavailable,
)
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import STORYTELLER, overload_status, refuse, spelled

ROUND = GenerationUsage(prompt_tokens=3, generated_tokens=5, queue_s=0.002, first_token_s=0.03)


@pytest.fixture
def endless(service):
    """Let the service generate until it is cancelled, and return the event of that."""
    cancelled = threading.Event()

    def generate(request, context):
        context.add_callback(cancelled.set)
        while True:
            yield pb.GenerateResponse(token_ids=[1], text="a")

    service.on_generate = generate
    return cancelled


def test_deltas_come_one_by_one(client):
    """Each with its text and tokens; the last has the reason and the usage."""
    answer = client.generate("m", "Paris")
    *deltas, last = answer
    assert [(delta.text, delta.token_ids, delta.finish_reason) for delta in deltas] == [
        (letter, (ord(letter),), None) for letter in "Paris"
    ]
    assert (last.text, last.finish_reason, last.usage) == ("", FinishReason.STOP, ROUND)
    assert (answer.text, answer.model, answer.version) == ("Paris", "m", "2")


def test_deltas_come_as_they_are_sent(client, service):
    """The first is there while the server waits for its reader."""
    read = threading.Event()

    def generate(request, context):
        first, *others = spelled(request)
        yield first
        assert read.wait(PATIENCE_S)
        yield from others

    service.on_generate = generate
    answer = client.generate("m", "on")
    assert next(answer).text == "o"
    read.set()
    assert answer.result().text == "on"


def test_asyncio_deltas(server):
    """An asynchronous iterator, and what came stays with the answer."""

    async def run():
        async with AsyncClient(server.address) as client:
            answer = client.chat("m", "Paris")
            letters = [delta.text async for delta in answer]
            return letters, await answer.result(), answer.version

    letters, whole, version = asyncio.run(run())
    assert letters == [*"Paris", ""]
    assert (whole.text, version) == ("Paris", "2")


def test_whole_answer(call, server):
    """Text, tokens, reason, usage, who answered, and the metadata of the end."""
    whole = call(server.address, "generate", "m", "Paris", request_id="mine")
    assert (whole.text, whole.token_ids, whole.logprobs) == ("Paris", tuple(map(ord, "Paris")), ())
    assert (whole.finish_reason, whole.usage) == (FinishReason.STOP, ROUND)
    assert (whole.model, whole.version, whole.request_id) == ("m", "2", "mine")
    assert whole.metadata == {}


def test_options_are_sent(call, server, service):
    """Each in its field; what is left out or None stays unset."""
    options = {
        "max_tokens": 7, "min_tokens": 2, "temperature": 0, "top_k": 50, "top_p": 0.9, "min_p": 0.1, "seed": 2**63,
        "repetition_penalty": 1.1, "frequency_penalty": -1, "presence_penalty": 0.5, "stop": ["\n\n", "END"],
        "stop_token_ids": [5], "ignore_end_tokens": True, "logprobs": 0, "version": "2", "priority": 1,
        "request_id": "mine",
    }  # fmt: skip
    call(server.address, "generate", "m", "on", **options)
    call(server.address, "generate", "m", "on", max_tokens=None, temperature=None, stop="END")
    sent, bare = service.generate_requests
    assert sent == pb.GenerateRequest(
        model="m", version="2", request_id="mine", prompt=pb.Prompt(text="on"), max_tokens=7, logprobs=0, priority=1,
        sampling=pb.Sampling(
            temperature=0, top_k=50, top_p=0.9, min_p=0.1, seed=2**63, repetition_penalty=1.1, frequency_penalty=-1,
            presence_penalty=0.5,
        ),
        stop=pb.StopConditions(texts=["\n\n", "END"], token_ids=[5], ignore_end_tokens=True, min_tokens=2),
    )  # fmt: skip
    assert not bare.sampling.ListFields()
    assert not bare.HasField("max_tokens")
    assert not bare.HasField("logprobs")
    assert list(bare.stop.texts) == ["END"]


def _answer_nothing(request, context):
    yield pb.GenerateResponse(finish_reason=pb.FINISH_REASON_LENGTH, usage=pb.GenerationUsage())


def test_forms_of_prompts(call, server, service):
    """Text, token ids as a list or an array, messages, and the text of one message."""
    service.on_generate = _answer_nothing
    call(server.address, "generate", "m", [3, 1])
    whole = call(server.address, "generate", "m", np.array([3, 1]))
    call(server.address, "chat", "m", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}])
    call(server.address, "chat", "m", "hi")
    listed, array, messages, text = (request.prompt for request in service.generate_requests)
    assert list(listed.token_ids.ids) == list(array.token_ids.ids) == [3, 1]
    assert [(each.role, each.content) for each in messages.chat.messages] == [("system", "be brief"), ("user", "hi")]
    assert [(each.role, each.content) for each in text.chat.messages] == [("user", "hi")]
    assert (whole.text, whole.finish_reason) == ("", FinishReason.LENGTH)


def test_logprobs(call, server, service):
    """Of each token, with the most likely ones; tokens are bytes."""
    entry = pb.TokenLogprobs(
        chosen=pb.TokenLogprob(token_id=9, token=b"\xe2\x82", logprob=-0.5),
        top=[pb.TokenLogprob(token_id=4, token=b"a", logprob=-0.25)],
    )

    def generate(request, context):
        yield pb.GenerateResponse(token_ids=[9], logprobs=[entry])
        yield from _answer_nothing(request, context)

    service.on_generate = generate
    whole = call(server.address, "generate", "m", "on", logprobs=1)
    (found,) = whole.logprobs
    assert found == TokenLogprobs(TokenLogprob(9, b"\xe2\x82", -0.5), (TokenLogprob(4, b"a", -0.25),))


def test_unknown_reason_to_end(call, server, service):
    """One of a newer server."""

    def generate(request, context):
        yield pb.GenerateResponse(finish_reason=77, usage=pb.GenerationUsage())

    service.on_generate = generate
    assert call(server.address, "generate", "m", "on").finish_reason is FinishReason.UNSPECIFIED


@pytest.mark.parametrize(
    ("method", "prompt", "options", "text"),
    [
        ("generate", b"on", {}, r"prompt: expected a str or token ids, got bytes"),
        ("generate", [1.5], {}, r"prompt: expected an int, got float"),
        ("generate", [-1], {}, r"prompt is -1, expected 0 to 4294967295"),
        ("generate", "on", {"max_tokens": "7"}, r"max_tokens: expected an int, got str"),
        ("generate", "on", {"temperature": float("nan")}, r"temperature is nan, expected a number"),
        ("generate", "on", {"stop": 5}, r"stop: expected a str or several, got int"),
        ("generate", "on", {"stop_token_ids": "5"}, r"stop_token_ids: expected token ids, got str"),
        ("generate", "on", {"ignore_end_tokens": 1}, r"ignore_end_tokens: expected True or False, got int"),
        ("generate", "on", {"max_token": 7}, r"max_token: expected one of max_tokens, "),
        ("generate", "on", {"request_id": "x" * 129}, r"request_id: expected at most 128"),
        ("chat", {"role": "user"}, {}, r"messages: expected a str, or mappings"),
        ("chat", ["hi"], {}, r"messages\[0\]: expected a mapping with role and content, got str"),
        ("chat", [{"role": "user"}], {}, r"messages\[0\]: expected role and content, got role"),
        ("chat", [{"role": "user", "content": 5}], {}, r"messages\[0\]\.content: expected a str, got int"),
    ],
    ids=str,
)
def test_invalid_arguments(client, service, method, prompt, options, text):
    """They are named before anything is sent, and before the answer is asked for."""
    with pytest.raises((TypeError, ValueError), match=text):
        getattr(client, method)("m", prompt, **options)
    assert not service.generate_requests


def test_closing_cancels(client, endless):
    """The server is told, and the answer says that it was not complete."""
    answer = client.generate("m", "on")
    next(answer)
    answer.close()
    assert endless.wait(PATIENCE_S)
    with pytest.raises(Cancelled, match="closed before its end"):
        answer.result()


def test_leaving_the_block_cancels(client, endless):
    """Also by an exception."""

    def leave(answer):
        with answer:
            next(answer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave(client.generate("m", "on"))
    assert endless.wait(PATIENCE_S)


def test_dropping_the_answer_cancels(client, endless):
    """Leaving a loop is enough."""
    for _ in client.generate("m", "on"):
        break
    gc.collect()
    assert endless.wait(PATIENCE_S)


def test_closing_a_complete_answer_keeps_it(client):
    """As a ``with`` block does."""
    with client.generate("m", "on") as answer:
        assert answer.result().text == "on"
    assert answer.result().text == "on"


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_asyncio_cancels(server, endless, how):
    """By closing the answer, and by cancelling the task that reads it."""

    async def run():
        async with AsyncClient(server.address) as client:
            if how == "close":
                async with aclosing(client.generate("m", "on")) as answer:
                    await anext(answer)
            else:
                answer = client.generate("m", "on")
                await anext(answer)
                task = asyncio.create_task(answer.result())
                await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await asyncio.to_thread(endless.wait, 10)

    asyncio.run(run())


def test_nothing_is_sent_before_the_first_delta_is_asked_for(client, service):
    """So an answer may be dropped."""
    client.generate("m", "on").close()
    assert not service.generate_requests


@pytest.mark.parametrize("method", ["generate", "chat"])
def test_rejected_requests_are_retried(call, server, service, method):
    """As those of other methods, before anything was answered."""

    def generate(request, context):
        if len(service.generate_requests) < 3:
            refuse(context, pushback_ms="10", details=overload_status(retry_s=0.01).SerializeToString())
        yield from spelled(request)

    service.on_generate = generate
    patient = RetryPolicy(initial_backoff_s=600.0, max_backoff_s=600.0)
    assert call(server.address, method, "m", "on", settings={"retry": patient}).text == "on"
    assert len(service.generate_requests) == 3


def test_rejection_that_stays(call, server, service):
    """With its reason, hint and id."""

    def generate(request, context):
        refuse(context, pushback_ms="-1", details=overload_status(retry_s=2).SerializeToString())
        yield

    service.on_generate = generate
    with pytest.raises(Overloaded) as caught:
        call(server.address, "generate", "m", "on", request_id="mine")
    assert (caught.value.reason, caught.value.retry_after_s, caught.value.request_id) == ("QUEUE_FULL", 2, "mine")


def test_error_after_deltas(client, service):
    """What came stays; nothing is retried, and the error is raised again by ``result``."""

    def generate(request, context):
        yield next(iter(spelled(request)))
        context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    service.on_generate = generate
    answer = client.generate("m", "on")
    assert next(answer).text == "o"
    with pytest.raises(Unavailable, match="draining"):
        next(answer)
    with pytest.raises(Unavailable, match="draining"):
        answer.result()
    assert answer.text == "o"
    assert len(service.generate_requests) == 1


def test_answer_without_an_end(call, server, service):
    """A server that ends the stream with OK too early."""
    service.on_generate = lambda request, _: list(spelled(request))[:-1]
    with pytest.raises(Internal, match="the stream ended before the answer did"):
        call(server.address, "generate", "m", "on")


def test_timeout_is_for_the_whole_answer(call, server, service):
    """Its default is not the client's, which would end long answers."""
    left = []

    def generate(request, context):
        left.append(context.time_remaining())
        yield from spelled(request)

    service.on_generate = generate
    call(server.address, "generate", "m", "on", settings={"timeout_s": 5})
    call(server.address, "generate", "m", "on", settings={"timeout_s": 100}, timeout_s=None)
    call(server.address, "chat", "m", "on", timeout_s=300)
    # gRPC rounds what it sends up, and a busy machine takes seconds to get here.
    assert left == pytest.approx([600, 100, 300], abs=30)
    with pytest.raises(DeadlineExceeded):
        call(server.address, "generate", "m", "on", timeout_s=0)


def test_closed_client_ends_answers(server, endless):
    """Those in progress are cancelled."""
    client = Client(server.address)
    answer = client.generate("m", "on")
    next(answer)
    client.close()
    with pytest.raises(Cancelled):
        answer.result()
    assert endless.wait(PATIENCE_S)
    with pytest.raises(RuntimeError, match="closed"):
        client.generate("m", "on")


def test_description_of_language_models(call, server, service):
    """What they generate; None of other models."""
    service.models.append(STORYTELLER)
    assert call(server.address, "model", "digits").generation is None
    assert call(server.address, "model", "storyteller").generation == GenerationInfo(
        context_length=2048, vocabulary_size=49152, max_sequences=32, cache_bytes_per_token=46080, cache_bytes=2**30,
        cache_bytes_in_use=0, has_tokenizer=True, has_chat_template=True, default_max_tokens=512,
    )  # fmt: skip
