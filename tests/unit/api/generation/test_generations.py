"""From the params to the engine: checks, defaults, quotas, waits, cancelling."""

import math

import numpy as np
import pytest

from inferd.api.generation.generations import Generations
from inferd.api.generation.params import Chat
from inferd.api.generation.tokenization import SHORT_BYTES
from inferd.api.model_waits import Waited
from inferd.call_context import GENERATED_KEY
from inferd.config.settings import ModelSettings
from inferd.errors import (
    ColdModelError,
    DeadlineExceededError,
    InferenceFailedError,
    InvalidInputError,
    ModelNotFoundError,
    OverloadedError,
)
from inferd.generation.request import FinishReason, Sampling
from inferd.observability import timing
from tests.unit.api.generation.fakes import CONTEXT, END, VOCABULARY, Bench, FakeLanguageModel, Recorder, params


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inferd.api.generation.generations.monotonic", lambda: 100.0)
    monkeypatch.setattr("inferd.api.admission.monotonic", lambda: 100.0)


class Asked(Bench):
    """A request that has been submitted."""

    def __init__(self, prompt: object = "once", *, model: FakeLanguageModel | None = None, **fields: object) -> None:
        super().__init__(model)
        self.generations = Generations(self.resources)
        self.ask(prompt, **fields)

    def ask(self, prompt: object = "once", **fields: object) -> Recorder:
        self.got = Recorder()
        self.call.on_terminated(self.generations.begin(self.call, params(prompt, **fields), self.got))
        return self.got

    @property
    def request(self):
        (request,) = self.engine.submitted
        return request


def test_passes_deltas_on_to_the_receiver() -> None:
    """The receiver gets the version first, then the deltas up to the last one."""
    asked = Asked("once", request_id="mine")
    assert asked.got.started == [], "nothing was generated yet"
    asked.engine.generate(" upon")
    asked.engine.finish(" a")
    assert asked.got.started == [("story", asked.request)]
    assert asked.got.text == " upon a"
    assert asked.got.deltas[-1].finish_reason is FinishReason.STOP
    assert bytes(asked.request.prompt.tolist()) == b"once"
    assert (asked.request.request_id, asked.call.context.model, asked.call.context.version) == ("mine", "story", "3")


def test_fills_in_the_models_defaults() -> None:
    """Defaults of sampling, end tokens, and max_tokens by what the prompt leaves of the context."""
    model = FakeLanguageModel(temperature=0.5, top_k=40, top_p=0.9, repetition_penalty=1.1)
    asked = Asked("once", model=model, seed=5)
    assert asked.request.sampling == Sampling(
        temperature=0.5, top_k=40, top_p=0.9, repetition_penalty=1.1, seed=5, min_p=0.0
    )
    assert asked.request.stops.token_ids == {END}
    assert asked.request.max_tokens == CONTEXT - 4
    assert asked.request.wants_text
    assert asked.request.top_logprobs is None
    asked = Asked("once", ignore_end_tokens=True, stop_token_ids=[9], temperature=0.0, top_k=0, seed=-1)
    assert asked.request.stops.token_ids == {9}
    assert asked.request.sampling.seed == 2**64 - 1


def test_default_length_is_that_of_the_settings() -> None:
    """default_max_tokens applies if the context leaves more."""
    model = FakeLanguageModel()
    model.settings = ModelSettings.model_validate({"generation": {"default_max_tokens": 10}})
    assert Asked("once", model=model).request.max_tokens == 10


def test_context_is_at_most_the_cache() -> None:
    """A request that can never fit into the cache is rejected at once."""
    model = FakeLanguageModel()
    model.generator.max_request_tokens = 20
    assert Asked("once", model=model).request.max_tokens == 16
    assert "at most 16, as the context has 20 tokens" in Asked(model=model, max_tokens=17).got.error.message


def test_draws_a_seed_if_none_is_given() -> None:
    """Two requests without a seed get different ones."""
    assert Asked().request.sampling.seed != Asked().request.sampling.seed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 2.5}, "temperature: expected 0 to 2, got 2.5"),
        ({"temperature": math.nan}, "temperature: expected 0 to 2, got nan"),
        ({"top_k": -2}, "top_k: expected 0 or more, got -2"),
        ({"top_p": 0.0}, "top_p: expected more than 0 and at most 1, got 0"),
        ({"min_p": 1.5}, "min_p: expected 0 to 1, got 1.5"),
        ({"frequency_penalty": -3}, "frequency_penalty: expected -2 to 2, got -3"),
        ({"presence_penalty": 3}, "presence_penalty: expected -2 to 2, got 3"),
        ({"repetition_penalty": 0}, "repetition_penalty: expected more than 0 and at most 1000000, got 0"),
        ({"logprobs": 21}, "logprobs: expected 0 to 20, got 21"),
        ({"max_tokens": 0}, "max_tokens: expected 1 or more, got 0"),
        (
            {"max_tokens": 61},
            "max_tokens: expected at most 60, as the context has 64 tokens and the prompt 4, got 61",
        ),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens: expected at most 4, as max_tokens, got 5"),
        ({"min_tokens": -1}, "min_tokens: expected 0 or more, got -1"),
        ({"stop_strings": ["x"] * 17}, "stop_strings: expected at most 16, got 17"),
        ({"stop_strings": ["x", ""]}, "stop_strings: expected texts of 1 to 1024 bytes, got 0"),
        ({"stop_strings": ["ü" * 513]}, "stop_strings: expected texts of 1 to 1024 bytes, got 1026"),
        ({"stop_token_ids": [1, VOCABULARY]}, "stop_token_ids: expected tokens from 0 to 255, got 256"),
        ({"stop_token_ids": [1] * 1025}, "stop_token_ids: expected at most 1024, got 1025"),
        ({"priority": 9}, "priority: expected 1 (first) to 3, 4 for a scavenger, or 0 for the default, got 9"),
    ],
)
def test_invalid_fields(fields: dict[str, object], message: str) -> None:
    """The error has the field, what was expected and what came."""
    asked = Asked(**fields)
    assert isinstance(asked.got.error, InvalidInputError)
    assert (asked.got.error.message, asked.got.error.field) == (message, message.split(":", maxsplit=1)[0])
    assert asked.engine.submitted == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("x" * CONTEXT, "expected at most 63 tokens, as the context has 64, got 64"),
        ("", "expected at least one token, got an empty text"),
        ("\ud800", "expected text, got half of a surrogate pair"),
        ([], "expected at least one token, got none"),
        ([1, 256, -1], "expected tokens from 0 to 255, got 256 at 1"),
        ([1, -1], "expected tokens from 0 to 255, got -1 at 1"),
        ([2**70], "expected token ids, got others than integers of 64 bits"),
        (Chat([]), "expected 1 to 1024 messages, got 0"),
    ],
)
def test_invalid_prompts(prompt: object, message: str) -> None:
    """The error has the protocol's name of the prompt."""
    asked = Asked(prompt, fields={"prompt": "prompt.form"})
    assert (asked.got.error.message, asked.got.error.field) == (f"prompt.form: {message}", "prompt.form")


def test_errors_of_the_template_name_the_prompt() -> None:
    """The message is the chat template's own."""
    asked = Asked(Chat([{"role": "nobody", "content": ""}]), fields={"prompt": "messages"})
    assert (asked.got.error.message, asked.got.error.field) == (
        'the chat template knows no role "nobody"',
        "messages",
    )


def test_model_without_tokenizer_takes_and_gives_tokens() -> None:
    """Text in any form is rejected: prompts, chats and stop strings."""
    asked = Asked([5, 6], model=FakeLanguageModel(has_text=False))
    assert not asked.request.wants_text
    assert 'prompt: expected token ids, as model "story" has no tokenizer' in asked.ask("text").error.message
    assert "no tokenizer" in asked.ask([1], stop_strings=["x"]).error.message


def test_names_the_model_field() -> None:
    """Errors about the model, unknown or no language model, have the protocol's field of its name."""
    assert isinstance(Asked(model=FakeLanguageModel()).ask("x", model="none").error, ModelNotFoundError)
    model = FakeLanguageModel()
    model.language = None
    asked = Asked(model=model, fields={"model": "model_name"})
    assert asked.got.error.field == "model_name"
    assert "no language model" in asked.got.error.message


def test_long_texts_are_tokenized_by_another_thread() -> None:
    """The poll thread continues meanwhile, and submits the request afterwards."""
    asked = Asked("x" * (SHORT_BYTES + 1))
    assert asked.got.errors == []
    asked.large.work.run()
    assert asked.got.errors == [], "the receiver is called on the poll thread"
    asked.soon.run()
    assert "at most 63 tokens" in asked.got.error.message
    assert len(Asked("x" * SHORT_BYTES).large.work.waiting) == 0
    assert len(Asked("é" * (SHORT_BYTES // 2)).large.work.waiting) == 1
    asked = Asked(Chat([{"role": "user", "content": ""}] * 33))
    assert len(asked.large.work.waiting) == 1
    assert len(Asked(np.zeros(40, np.int64)).engine.submitted) == 1, "given tokens need no work"


def test_text_that_cannot_fit_is_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizing a text that is far too long for the context would take seconds."""
    asked = Asked()
    monkeypatch.setattr(asked.model.text, "encode", lambda text: pytest.fail("tokenized"))
    asked.ask("x" * (128 * CONTEXT + 1))
    asked.large.work.run()
    asked.soon.run()
    assert asked.got.error.message == "prompt: expected at most 63 tokens, got 8193 characters"


def test_too_many_long_texts_are_refused() -> None:
    """The error has the retry hint of the thread for large messages."""
    asked = Asked()
    asked.large.full = True
    assert isinstance(asked.ask("x" * 5000).error, OverloadedError)


def test_request_cancelled_while_it_is_tokenized_is_not_submitted() -> None:
    """The receiver is not called either."""
    asked = Asked("x" * 2049)
    asked.call.terminated()
    asked.large.work.run()
    asked.soon.run()
    assert asked.engine.submitted == asked.got.errors == []


def test_exception_of_a_tokenizer_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver gets an internal error without the text of the exception."""
    asked = Asked()
    monkeypatch.setattr(asked.model.text, "encode", lambda text: 1 / 0)
    assert isinstance(asked.ask("x").error, InferenceFailedError)


def test_generation_ends_with_its_call() -> None:
    """The engine cancels the request, and the receiver is not called again."""
    asked = Asked()
    asked.engine.generate("a")
    asked.call.terminated()
    assert asked.engine.cancelled == [asked.request]
    asked.engine.generate("b")
    asked.engine.fail(InferenceFailedError())
    assert (asked.got.text, asked.got.errors) == ("a", [])


def test_end_is_final() -> None:
    """A call that terminates after the last delta cancels nothing."""
    asked = Asked()
    asked.engine.finish("a")
    asked.call.terminated()
    assert asked.engine.cancelled == []


def test_error_after_some_tokens() -> None:
    """The receiver gets the tokens before the error."""
    asked = Asked()
    asked.engine.generate("a")
    asked.engine.fail(DeadlineExceededError("too late"))
    assert asked.got.text == "a"
    assert asked.got.error.message == "too late"


def test_exception_of_a_receiver_ends_its_request_only() -> None:
    """The other requests of the step get their deltas."""
    asked = Asked()
    asked.got.on_delta = lambda delta: 1 / 0
    asked.engine.generate("a")
    assert isinstance(asked.got.error, InferenceFailedError)
    assert asked.engine.cancelled == [asked.request]


def test_deadlines_and_timeouts() -> None:
    """The earlier one of the call's and the request's applies; without both, that of the settings."""
    model = FakeLanguageModel()
    model.settings = ModelSettings.model_validate({"generation": {"default_timeout_s": 30}})
    assert Asked(model=model).request.deadline == 130.0
    assert Asked(model=FakeLanguageModel(), timeout_s=5.0).request.deadline == 105.0
    asked = Asked(model=FakeLanguageModel(), timeout_s=5.0)
    asked.call.deadline = 102.0
    asked.ask(timeout_s=5.0)
    asked.ask()
    assert [request.deadline for request in asked.engine.submitted[1:]] == [102.0, 102.0]


def test_records_tokens_and_finish_reason() -> None:
    """The record of the call has what access log and traces need."""
    asked = Asked(Chat([{"role": "user", "content": "hi"}]))
    asked.engine.generate("ab")
    asked.engine.finish("c", reason=FinishReason.LENGTH)
    generated = asked.call.annotations[GENERATED_KEY]
    assert (generated.operation, generated.prompt_tokens, generated.tokens) == ("chat", 8, 3)
    assert (generated.first_token_s, list(generated.finish_reasons)) == (0.0, ["length"])
    assert asked.call.context.queue_s == 0.25


def test_measures_stages_on_demand() -> None:
    """Stages are filled only if they are measured; tokenizing counts as decoding."""
    bench = Bench()
    stages = timing.measure(bench.call.annotations)
    Generations(bench.resources).begin(bench.call, params(), Recorder())
    bench.engine.finish("x")
    assert dict(stages.durations_s()) == {"decode": 0.0, "queue": 0.25}
    Generations(bench.resources).begin(bench.call, params(), Recorder(), waited=Waited(100.0, loads=1, load_s=2.0))
    assert dict(stages.durations_s())["load"] == 2.0


class Cold(Asked):
    """A request whose model is not loaded."""

    def __init__(self) -> None:
        self.cold = True
        super().__init__()

    def ask(self, prompt: object = "once", **fields: object) -> Recorder:
        get = self.registry.get

        def look_up(name: str, version: str = "") -> object:
            if self.cold:
                raise ColdModelError("cold", model=name, version="3")
            return get(name, version)

        self.registry.get = look_up
        return super().ask(prompt, **fields)


def test_waits_for_a_cold_model() -> None:
    """The deadline of a request that waits for its model counts from its arrival."""
    asked = Cold()
    (waiting,) = asked.waits.waiting
    asked.cold = False
    waiting["go_on"](Waited(100.0, loads=1, load_s=2.0))
    assert asked.request.received_at == 100.0
    asked.engine.finish("x")
    assert asked.got.text == "x"


def test_wait_for_a_cold_model_ends_with_the_call() -> None:
    """The request is withdrawn from the wait."""
    asked = Cold()
    asked.call.terminated()
    assert asked.waits.withdrawn == 1


def test_wait_for_a_cold_model_may_fail() -> None:
    """The receiver gets the error of the load."""
    asked = Cold()
    asked.waits.waiting[0]["fail"](OverloadedError("too many wait", retry_after_s=1.0))
    assert asked.got.error.message == "too many wait"


def test_scored_prompts() -> None:
    """They may fill the context, and need a model that can compute logits of all tokens."""
    prompt = [5] * CONTEXT
    request = Asked(prompt, scores_prompt=True, logprobs=0, max_tokens=0).request
    assert (request.scores_prompt, request.max_tokens) == (True, 0)
    text = f"expected at most {CONTEXT - 1} tokens, as the context has {CONTEXT}, got {CONTEXT}"
    assert text in Asked(prompt, scores_prompt=True, logprobs=0, max_tokens=1).got.error.message
    pruned = FakeLanguageModel(scores_prompts=False)
    error = Asked(model=pruned, scores_prompt=True, logprobs=0).got.error
    assert (
        error.message == "logprobs: expected none of the prompt, as the model gives logits of last tokens only, got 0"
    )
