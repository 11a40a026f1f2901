"""Requests of language models for tests."""

import numpy as np

from inferd.generation.request import GenerationRequest, Sampling, StopConditions
from tests.fakes import Caller

_GREEDY = Sampling()


def request(
    *,
    prompt=(0,),
    sampling=_GREEDY,
    token_ids=(),
    strings=(),
    min_tokens=0,
    max_tokens=64,
    top_logprobs=None,
    wants_text=True,
):
    return GenerationRequest(
        prompt=np.array(prompt, np.int64),
        max_tokens=max_tokens,
        receiver=Caller(),
        received_at=0.0,
        sampling=sampling,
        stops=StopConditions(token_ids=frozenset(token_ids), strings=tuple(strings), min_tokens=min_tokens),
        top_logprobs=top_logprobs,
        wants_text=wants_text,
    )
