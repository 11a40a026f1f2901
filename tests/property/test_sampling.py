"""What the sampler chooses, compared with the plainest way to say it, and with what it chooses for each row alone."""

import math
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.generation.logprobs import token_logprobs
from inferd.generation.request import GenerationRequest, Sampling, StopConditions
from inferd.generation.sampler import NO_TOKEN, SequenceSampling, choose_tokens
from tests.fakes import Caller

#: Up to here the candidates are sorted; larger ones have more than can be.
_VOCABULARIES = [1, 2, 7, 255, 257, 700, 2500]

_SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 50, 256, 257, 600, 10**6]),
    top_p=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.5, 0.01]),
    min_p=st.sampled_from([0.0, 0.0, 0.001, 0.1, 1.0]),
    seed=st.integers(0, 2**64 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.8]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5, -2.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -0.25]),
)


@dataclass
class Case:
    """One sequence: what it wants, and the logits of its next tokens, [steps, vocabulary]."""

    request: GenerationRequest
    logits: np.ndarray


def _request(
    sampling: Sampling, stops: StopConditions, prompt: list[int], top_logprobs: int | None = None
) -> GenerationRequest:
    return GenerationRequest(
        prompt=np.array(prompt, np.int64),
        max_tokens=64,
        receiver=Caller(),
        received_at=0.0,
        sampling=sampling,
        stops=stops,
        top_logprobs=top_logprobs,
    )


@st.composite
def _cases(draw: st.DrawFn, vocabulary: int, steps: int) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.standard_normal((steps, vocabulary)) * draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 30.0]))
    if draw(st.booleans()):  # many equal ones
        logits = np.round(logits * 2) / 2
    if draw(st.booleans()):  # few that can be chosen
        logits[rng.random(logits.shape) < 0.9] = -np.inf
        logits[:, rng.integers(vocabulary)] = 1.0
    prompt = rng.integers(0, vocabulary, draw(st.integers(1, 20))).tolist()
    # With all tokens forbidden, nothing could be chosen.
    stops = StopConditions(
        token_ids=frozenset(rng.integers(0, vocabulary + 3, 2).tolist()) if vocabulary > 2 else frozenset(),
        min_tokens=draw(st.integers(0, 3)),
    )
    request = _request(draw(_SAMPLINGS), stops, prompt, draw(st.sampled_from([None, 0, 3, 20])))
    return Case(request, logits.astype(np.float32))


def _several(steps: int) -> st.SearchStrategy[list[Case]]:
    return st.sampled_from(_VOCABULARIES).flatmap(
        lambda vocabulary: st.lists(_cases(vocabulary, steps), min_size=1, max_size=5)
    )


@settings(max_examples=50)
@given(_several(steps=4))
def test_rows_together_are_as_each_alone(cases: list[Case]) -> None:
    """Tokens and log probabilities are bit for bit the same."""
    together = [SequenceSampling(case.request) for case in cases]
    alone = [SequenceSampling(case.request) for case in cases]
    for step in range(4):
        logits = np.stack([case.logits[step] for case in cases])
        before = logits.copy()
        tokens = choose_tokens(logits, together)
        assert np.array_equal(logits, before)
        known = token_logprobs(logits, tokens, together, None)
        for row, state in enumerate(alone):
            own = before[row : row + 1].copy()
            assert choose_tokens(own, [state]) == [tokens[row]]
            assert token_logprobs(own, [tokens[row]], [state], None) == [known[row]]


@settings(max_examples=40)
@given(_several(steps=3))
def test_chooses_the_tokens_of_a_plain_sampler(cases: list[Case]) -> None:
    """Sorting in double precision chooses the same tokens, except where rounding decides."""
    for case in cases:
        sampling = case.request.sampling
        state = SequenceSampling(case.request)
        randoms = np.random.Generator(np.random.Philox(key=sampling.seed))
        generated: list[int] = []
        for row in case.logits:
            [token] = choose_tokens(row[None].copy(), [state])
            adjusted = _adjusted(row, case.request, generated)
            if max(adjusted) == -math.inf:
                assert token == NO_TOKEN
                break
            assert token in _acceptable(adjusted, sampling, randoms.random())
            generated.append(token)


def _adjusted(row: np.ndarray, request: GenerationRequest, generated: list[int]) -> list[float]:
    """Return logits with penalties, and without end tokens that are too early."""
    sampling = request.sampling
    values = list(row)
    prompt = set(request.prompt.tolist())
    for token in range(len(values)):
        count = generated.count(token)
        if count or token in prompt:
            penalty = np.float32(sampling.repetition_penalty)
            values[token] = values[token] / penalty if values[token] > 0 else values[token] * penalty
        values[token] -= np.float32(sampling.frequency_penalty) * np.float32(count)
        if count:
            values[token] -= np.float32(sampling.presence_penalty)
        if token in request.stops.token_ids and len(generated) < request.stops.min_tokens:
            values[token] = -math.inf
    return [float(value) for value in values]


def _acceptable(logits: list[float], sampling: Sampling, random: float) -> set[int]:
    """Return the tokens that are right, give or take an error of rounding."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if sampling.temperature == 0:
        return {order[0]}
    weights = [math.exp((logits[token] - logits[order[0]]) / sampling.temperature) for token in order]
    weights = weights[: sampling.top_k or None]
    found = set()
    for top_p, min_p in product(_near(sampling.top_p), _near(sampling.min_p)):
        kept = dict(sorted(_kept(order, weights, top_p, min_p).items()))
        found.update(_at(kept, random + shift) for shift in (-1e-5, 0.0, 1e-5))
    return found


def _near(value: float) -> list[float]:
    return [value * (1 - 1e-5), value, value * (1 + 1e-5)] if 0 < value < 1 else [value]


def _kept(order: list[int], weights: list[float], top_p: float, min_p: float) -> dict[int, float]:
    """Return the weights of the tokens that are kept."""
    enough = top_p * sum(weights) if top_p < 1 else math.inf
    kept, before = {}, 0.0
    for token, weight in zip(order, weights, strict=False):
        if kept and (before >= enough or weight < min_p):
            break
        before += weight
        kept[token] = weight
    return kept


def _at(kept: dict[int, float], random: float) -> int:
    """Return the token in whose part of the interval from 0 to 1 ``random`` is."""
    target = random * sum(kept.values())
    for token, weight in kept.items():
        target -= weight
        if target < 0:
            return token
    return max(token for token, weight in kept.items() if weight > 0)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.8, top_k=5),
        Sampling(temperature=1.0, top_p=0.7),
        Sampling(temperature=2.0, top_p=0.97),
        Sampling(temperature=1.0, top_k=290, top_p=0.9, min_p=0.01),
    ],
    ids=["temperature", "top_k", "top_p", "flat", "all"],
)
def test_frequencies_are_the_probabilities(sampling: Sampling) -> None:
    """With fixed seeds, each token is drawn its expected number of times within five standard deviations."""
    row = np.random.default_rng(7).standard_normal(400).astype(np.float32)
    draws = 1_600
    states = [SequenceSampling(_request(replace(sampling, seed=seed), StopConditions(), [0])) for seed in range(64)]
    logits = np.tile(row, (64, 1))
    found = np.zeros(400)
    for _ in range(draws // 64):
        np.add.at(found, choose_tokens(logits, states), 1)
    expected = _probabilities(row, sampling) * found.sum()
    assert np.all(found[expected == 0] == 0)
    assert np.all(np.abs(found - expected) <= 5 * np.sqrt(expected) + 1)


def _probabilities(row: np.ndarray, sampling: Sampling) -> np.ndarray:
    order = np.argsort(-row, kind="stable")
    weights = np.exp((row[order].astype(np.float64) - row.max()) / sampling.temperature)
    if sampling.top_k:
        weights[sampling.top_k :] = 0
    kept = (np.cumsum(weights) - weights < sampling.top_p * weights.sum()) & (weights >= sampling.min_p)
    found = np.zeros(len(row))
    found[order] = weights * kept
    return found / found.sum()
