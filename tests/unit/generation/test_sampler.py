"""Sampling: single cases. General properties are in tests/property/test_sampling.py."""

import numpy as np
import pytest

from inferd.generation.request import Sampling
from inferd.generation.sampler import NO_TOKEN, SequenceSampling, choose_tokens
from tests.unit.generation.generation_requests import request

_NAN, _INF = np.nan, np.inf
_GREEDY, _SAMPLED = Sampling(), Sampling(temperature=1.0, seed=3)
_NUCLEUS = Sampling(temperature=1.0, top_p=0.9, seed=3)


def _chosen(rows, *samplings, **wanted):
    states = [SequenceSampling(request(sampling=sampling, **wanted)) for sampling in samplings]
    return choose_tokens(np.array(rows, np.float32), states)


@pytest.mark.parametrize("sampling", [_GREEDY, _SAMPLED, _NUCLEUS])
def test_row_without_a_token_is_reported_and_does_not_change_others(sampling):
    rows = [[1, _NAN, 3], [-_INF] * 3, [0, 50, 1], [_NAN] * 3]
    assert _chosen(rows, *[sampling] * 4) == [NO_TOKEN, NO_TOKEN, 1, NO_TOKEN]


@pytest.mark.parametrize("sampling", [_GREEDY, _SAMPLED, _NUCLEUS])
def test_infinite_logit_is_the_most_likely(sampling):
    assert _chosen([[0, _INF, -_INF, _INF], [0, 50, 1, 2]], sampling, sampling) == [1, 1]


def test_row_without_token_takes_its_random_number():
    """The tokens after it depend on the seed and their position alone."""
    states = [SequenceSampling(request(sampling=_SAMPLED)) for _ in range(2)]
    flat = np.zeros((2, 1000), np.float32)
    broken = flat.copy()
    broken[0] = _NAN
    choose_tokens(broken, states)
    first, second = choose_tokens(flat, states)
    assert first == second


def test_greedy_and_sampled_rows_together_are_as_alone():
    rows = np.random.default_rng(1).standard_normal((4, 300))
    mixed = _chosen(rows, _GREEDY, _SAMPLED, _NUCLEUS, _GREEDY)
    alone = [_chosen(rows[n : n + 1], sampling)[0] for n, sampling in enumerate([_GREEDY, _SAMPLED, _NUCLEUS, _GREEDY])]
    assert mixed == alone
    assert mixed[::3] == rows[::3].argmax(axis=1).tolist()


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1e-6), Sampling(temperature=2.0, top_k=1), Sampling(temperature=1e-4, seed=5)]
)
def test_settings_that_leave_one_token_take_the_most_likely(sampling):
    assert _chosen([[0, 2, 1, 1.5], [3, 2, 1, 0]], sampling, sampling) == [1, 0]


def test_top_k_of_one_takes_the_lower_id_of_equal_ones():
    sampling = Sampling(temperature=1.0, top_k=1)
    assert {_chosen([[0, 2, 2]], Sampling(temperature=1.0, top_k=1, seed=seed))[0] for seed in range(20)} == {1}
    assert _chosen([[0, 2, 2]], sampling) == _chosen([[0, 2, 2]], _GREEDY)


def test_seeds_differ_and_repeat():
    flat = np.zeros((1, 10_000), np.float32)
    states = [SequenceSampling(request(sampling=Sampling(temperature=1.0, seed=seed))) for seed in (1, 1, 2, 2**64 - 1)]
    answers = [[choose_tokens(flat, [state])[0] for _ in range(5)] for state in states]
    assert answers[0] == answers[1]
    assert len({tuple(answer) for answer in answers}) == 3
    assert len(set(answers[0])) == 5


def test_end_tokens_are_not_chosen_before_the_minimum():
    state = SequenceSampling(request(token_ids=(1, 2, 99), min_tokens=2))
    row = np.array([[1, 3, 2, 0]], np.float32)
    assert [choose_tokens(row, [state])[0] for _ in range(4)] == [0, 0, 1, 1]


def test_repetition_penalty_counts_the_prompt_and_the_others_do_not():
    row = np.array([[2.0, 1.9, -1.0]], np.float32)
    assert _chosen(row, Sampling(repetition_penalty=1.5), prompt=(0,)) == [1]
    assert _chosen(row, Sampling(frequency_penalty=1.0, presence_penalty=1.0), prompt=(0,)) == [0]


def test_frequency_penalty_grows_with_each_repetition_and_presence_penalty_does_not():
    def answer(sampling):
        state = SequenceSampling(request(sampling=sampling))
        row = np.array([[1.0, 0.0, -3.5]], np.float32)
        return [choose_tokens(row, [state])[0] for _ in range(6)]

    assert answer(Sampling(frequency_penalty=0.7)) == [0, 0, 1, 0, 1, 0]
    assert answer(Sampling(presence_penalty=1.5)) == [0, 1, 0, 0, 0, 0]


def test_repetition_penalty_makes_negative_logits_less_likely():
    assert _chosen([[-1.0, -1.1]], Sampling(repetition_penalty=2.0), prompt=(0,)) == [1]


@pytest.mark.parametrize("sampling", [_GREEDY, _NUCLEUS])
def test_restores_the_logits(sampling):
    rows = np.random.default_rng(2).standard_normal((2, 50)).astype(np.float32)
    before = rows.copy()
    penalised = Sampling(**{name: getattr(sampling, name) for name in ("temperature", "top_p")}, repetition_penalty=1.5)
    wanted = {"prompt": (3, 3, 9), "token_ids": (3, 4), "min_tokens": 5}
    states = [SequenceSampling(request(sampling=penalised, **wanted)) for _ in range(2)]
    for _ in range(5):
        choose_tokens(rows, states)
    assert np.array_equal(rows, before)
