"""Log probabilities of prompts (``scores_prompt``) by the engine."""

import pytest

from inferd.errors import InferenceFailedError
from inferd.generation import runs
from inferd.generation.request import FinishReason
from tests.generating import Generation, a_request, alone, failing


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_scores_prompts(max_tokens):
    """The first delta has the log probabilities of the whole prompt, which was prefilled in several chunks."""
    generation, request = Generation(), a_request(prompt=21, max_tokens=max_tokens, top_logprobs=1, scores_prompt=True)
    generation.submit(request, a_request(prompt=9, max_tokens=9))
    generation.finish()
    first, *others = request.receiver.deltas
    assert [each.chosen.token_id for each in first.prompt_logprobs] == request.prompt[1:].tolist()
    assert not any(delta.prompt_logprobs for delta in others)
    for each, length in zip(first.prompt_logprobs, range(1, 21), strict=True):
        assert [top.token_id for top in each.top] == alone(a_request(request.prompt[:length].tolist(), 1))
    assert request.receiver.tokens == (alone(request) if max_tokens else [])
    last = request.receiver.deltas[-1]
    assert last.finish_reason is FinishReason.LENGTH
    assert (last.usage.prompt_tokens, last.usage.generated_tokens) == (21, max_tokens)
    generation.check()


def test_failure_of_scores_ends_its_request_only(monkeypatch):
    """Other requests complete."""
    generation, request, other = Generation(), a_request(scores_prompt=True, top_logprobs=0), a_request()
    monkeypatch.setattr(runs, "prompt_logprobs", failing)
    generation.submit(request, other)
    generation.finish()
    assert isinstance(request.receiver.error, InferenceFailedError)
    assert other.receiver.is_complete
