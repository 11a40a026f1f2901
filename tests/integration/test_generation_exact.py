"""A real decoder: what meets in its runs has no influence on any answer, bit for bit."""

import random

import numpy as np
import pytest

from inferd.config.settings import ModelSettings
from inferd.generation.request import Sampling
from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.decoder_opening import open_decoder
from tests.decoder_models import VOCABULARY, write_tiny_decoder
from tests.generating import OwnPollThread, a_request, sampled, started_engine

_REQUESTS = 200
_SLOTS = 8
_IN_FLIGHT = 20
_CHUNK = 16


@pytest.fixture(scope="module", params=["fp32", "int8"])
def path(request, tmp_path_factory):
    return write_tiny_decoder(tmp_path_factory.mktemp("model"), weights=request.param, tokenizer=False)


@pytest.fixture
def decoder(path):
    form = read_decoder(path)
    assert form is not None
    opened = open_decoder(path, ModelSettings.model_validate({"generation": {"max_sequences": _SLOTS}}), form)
    yield opened
    opened.close()


def _requests(seed):
    """Requests of all kinds: greedy and sampled ones, with prompts of less and of more than a chunk."""
    chance = random.Random(seed)
    made = []
    for number in range(_REQUESTS):
        prompt = [chance.randrange(2, VOCABULARY) for _ in range(chance.choice([1, 5, 15, 16, 17, 40]))]
        sampling = Sampling() if number % 2 else sampled(number, top_k=chance.choice([0, 40]), repetition_penalty=1.1)
        request = a_request(prompt, chance.randrange(1, 16), sampling=sampling, top_logprobs=3)
        request.priority = chance.choice([1, 2])
        made.append(request)
    return made


def _answers(engine, poll_thread, requests, in_flight, cancels):
    """Return tokens and log probabilities of ``requests``, of which so many are submitted before others have ended.

    Some are cancelled after the number of deltas in ``cancels``.
    """
    left, flying = list(enumerate(requests)), {}

    def go_on():
        for number, request in list(flying.items()):
            if len(request.receiver.deltas) >= cancels.get(number, 1000) and not request.receiver.has_ended:
                request.receiver.is_cancelled = True
                engine.cancel(request)
            if request.receiver.has_ended:
                del flying[number]
        while left and len(flying) < in_flight:
            number, request = left.pop(0)
            flying[number] = request
            engine.submit(request)
        return not flying

    poll_thread.run_until(go_on)
    return [
        [(about.chosen.token_id, np.float32(about.chosen.logprob)) for delta in deltas for about in delta.logprobs]
        for deltas in (request.receiver.deltas for request in requests)
    ]


def test_200_requests_have_the_answers_that_each_has_alone(decoder):
    """Tokens and log probabilities, while others are added, removed and cancelled at random."""
    chance = random.Random(7)
    cancels = {number: chance.randrange(1, 12) for number in range(_REQUESTS) if chance.random() < 0.25}
    poll_thread = OwnPollThread()
    engine = started_engine(decoder, poll_thread, prefill_chunk_tokens=_CHUNK)
    together = _answers(engine, poll_thread, _requests(1), _IN_FLIGHT, cancels)
    alone = _answers(engine, poll_thread, _requests(1), 1, {})
    assert engine.stop(60.0)
    cut_off = 0
    for number, (tokens, expected) in enumerate(zip(together, alone, strict=True)):
        cut_off += len(tokens) < len(expected)
        assert tokens == expected[: len(tokens)]
        assert len(tokens) == len(expected) or number in cancels
    assert cut_off > 10
