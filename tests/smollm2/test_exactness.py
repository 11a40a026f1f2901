"""Answers beside others are bit for bit what they are alone."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import pytest

from inferd.client import AsyncClient, Generated, TokenLogprobs
from tests.smollm2.conftest import MODELS

_REQUESTS = 200
_IN_FLIGHT = 24
#: Of the vocabulary, without special tokens.
_TOKENS = range(100, 40_000)


@dataclass(frozen=True)
class _Wanted:
    """A request; ``closed_after`` deltas it is cancelled, unless that is 0."""

    prompt: list[int]
    options: dict[str, Any]
    closed_after: int


def _wanted(number: int) -> _Wanted:
    """Return one of the requests: greedy or sampled, short or long, and every fifth cancelled."""
    choose = random.Random(number)
    options: dict[str, Any] = {"max_tokens": choose.randint(8, 40), "logprobs": 1, "ignore_end_tokens": True}
    if number % 2:
        options |= {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "seed": number, "repetition_penalty": 1.1}
    else:
        options["temperature"] = 0
    prompt = [choose.choice(_TOKENS) for _ in range(choose.randint(4, 120))]
    return _Wanted(prompt, options, choose.randint(1, 8) if number % 5 == 0 else 0)


async def _answer(client: AsyncClient, model: str, wanted: _Wanted) -> list[tuple[int, TokenLogprobs]]:
    """Return the tokens of a request with their log probabilities, up to where it is cancelled."""
    found: list[tuple[int, TokenLogprobs]] = []
    async with client.generate(model, wanted.prompt, **wanted.options) as answer:
        deltas = 0
        async for delta in answer:
            found += zip(delta.token_ids, delta.logprobs, strict=True)
            deltas += 1
            if deltas == wanted.closed_after:
                break
    return found


async def _alone(client: AsyncClient, model: str, wanted: _Wanted) -> Generated:
    return await client.generate(model, wanted.prompt, **wanted.options).result()


@pytest.mark.timeout(1200)  # Each request runs alone too, one after another.
@pytest.mark.parametrize("model", MODELS)
def test_answers_do_not_depend_on_others(server, model):
    """Requests join, leave and are cancelled at any step; tokens and log probabilities stay the same bits."""
    requests = list(map(_wanted, range(_REQUESTS)))

    async def run() -> None:
        limit = asyncio.Semaphore(_IN_FLIGHT)

        async def beside_others(wanted: _Wanted) -> list[tuple[int, TokenLogprobs]]:
            async with limit:
                return await _answer(client, model, wanted)

        async with AsyncClient(server.grpc, timeout_s=None) as client:
            together = await asyncio.gather(*map(beside_others, requests))
            for wanted, found in zip(requests, together, strict=True):
                alone = await _alone(client, model, wanted)
                expected = list(zip(alone.token_ids, alone.logprobs, strict=True))
                assert found
                assert found == (expected[: len(found)] if wanted.closed_after else expected)

    asyncio.run(run())
