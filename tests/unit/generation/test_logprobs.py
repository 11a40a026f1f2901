"""Log probabilities, compared with the logarithm of softmax."""

import numpy as np
import pytest

from inferd.generation.logprobs import prompt_logprobs, token_logprobs
from inferd.generation.request import Sampling
from inferd.generation.sampler import NO_TOKEN, SequenceSampling, choose_tokens
from tests.unit.generation.generation_requests import request

_GREEDY = Sampling()


class Letters:
    """A tokenizer whose tokens are letters."""

    def stream(self, prompt):
        raise NotImplementedError

    def token_bytes(self, token_id):
        return bytes([97 + token_id % 26])


def _states(*counts, sampling=_GREEDY):
    return [SequenceSampling(request(sampling=sampling, top_logprobs=count)) for count in counts]


def _log_softmax(row):
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


def test_are_those_of_the_logits_in_descending_order():
    logits = (np.random.default_rng(1).standard_normal((3, 3000)) * 4).astype(np.float32)
    found = token_logprobs(logits, [5, 6, 7], _states(2, None, 20), Letters())
    assert found[1] is None
    for row, token, count in ((0, 5, 2), (2, 7, 20)):
        expected = _log_softmax(logits[row])
        best = np.argsort(-expected)[:count]
        assert [each.token_id for each in found[row].top] == best.tolist()
        assert [each.logprob for each in found[row].top] == pytest.approx(expected[best], abs=1e-5)
        assert found[row].chosen.logprob == pytest.approx(expected[token], abs=1e-5)
        assert (found[row].chosen.token_id, found[row].chosen.text) == (token, Letters().token_bytes(token))


def test_chosen_token_alone():
    [found] = token_logprobs(np.array([[0, 0]], np.float32), [1], _states(0), None)
    assert found.chosen.logprob == pytest.approx(np.log(0.5))
    assert (found.chosen.text, list(found.top)) == (b"", [])


def test_penalties_change_the_choice_and_not_the_probability():
    logits = np.array([[2.0, 1.0]], np.float32)
    states = _states(1, sampling=Sampling(repetition_penalty=8.0))
    tokens = choose_tokens(logits, states)
    [found] = token_logprobs(logits, tokens, states, None)
    assert tokens == [1]
    assert found.top[0].token_id == 0
    assert found.chosen.logprob == pytest.approx(_log_softmax(np.array([2.0, 1.0]))[1])


def test_sequences_that_did_not_ask_or_have_no_token_get_none():
    logits = np.full((2, 4), np.nan, np.float32)
    assert token_logprobs(logits, [0, NO_TOKEN], _states(None, 3), None) == [None, None]


def test_numbers_are_finite_whatever_the_logits():
    logits = np.array([[0, np.inf, -np.inf, np.inf], [0, 1, -np.inf, 0]], np.float32)
    infinite, usual = token_logprobs(logits, [1, 2], _states(4, 4), None)
    assert infinite.chosen.logprob == pytest.approx(np.log(0.5))
    assert [each.logprob for each in infinite.top] == pytest.approx([np.log(0.5), np.log(0.5), -9999.0])
    assert [each.token_id for each in infinite.top] == [1, 3, 0]
    assert usual.chosen.logprob == -9999.0
    assert [each.token_id for each in usual.top] == [1, 0, 3]


def test_at_most_the_vocabulary():
    [found] = token_logprobs(np.array([[0, 1]], np.float32), [1], _states(20), None)
    assert [each.token_id for each in found.top] == [1, 0]


def test_prompts_have_those_of_each_token_by_the_row_before_it():
    """However many rows are looked at together; the last row is that of what follows the prompt."""
    logits = (np.random.default_rng(2).standard_normal((21, 300)) * 4).astype(np.float32)
    tokens = list(range(40, 60))
    found = prompt_logprobs(logits, tokens, 2, Letters())
    assert [each.chosen.token_id for each in found] == tokens
    for row, each in zip(logits, found, strict=False):
        expected = _log_softmax(row)
        assert each.chosen.logprob == pytest.approx(expected[each.chosen.token_id], abs=1e-5)
        assert [top.token_id for top in each.top] == np.argsort(-expected)[:2].tolist()
