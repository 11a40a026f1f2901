"""Requests to generate, what they ask for, and what comes back."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.batching.queued import Principal
from inferd.errors import ServingError

#: Token ids of a prompt.
TokenIds = NDArray[np.int64]

_ANYBODY = Principal()


class FinishReason(Enum):
    """Why a generation ended with an answer."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """How the next token is chosen, checked, with the model's defaults in place of what was not given.

    Penalties first, then temperature (0: the most likely token), top_k (0: all), top_p, min_p. ``seed`` and the
    position of a token alone decide what is drawn.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stops:
    """What ends a generation besides the number of tokens.

    ``token_ids`` includes the model's end tokens unless they are ignored. They are not chosen before ``min_tokens``.
    ``texts`` need a tokenizer.
    """

    token_ids: frozenset[int] = frozenset()
    texts: tuple[str, ...] = ()
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token and its log probability, before sampling changed anything. ``text`` need not be UTF-8 on its own."""

    token_id: int
    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log probability of a chosen token, and those of the most likely ones, in descending order."""

    chosen: Candidate
    top: Sequence[Candidate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a request took; durations in seconds, from its admission."""

    prompt_tokens: int
    generated_tokens: int
    queue_s: float
    first_token_s: float


@dataclass(kw_only=True, slots=True)
class Delta:
    """What was generated since the last one. The last one has ``finish_reason`` and ``usage``.

    The first one has ``prompt_logprobs``, of all tokens of the prompt but the first one, if they are wanted. ``text``
    lacks incomplete characters, and what may become a stop text; it is empty without a tokenizer.
    """

    token_ids: list[int]
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class Receiver(Protocol):
    """Who waits for what is generated. On the poll thread: neither may block. One last delta or `on_error` ends it."""

    def on_delta(self, delta: Delta, /) -> None:
        """Take the next tokens."""
        ...

    def on_error(self, error: ServingError, /) -> None:
        """Take note that the request ended without a complete answer."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Turn:
    """When a request is served, on the monotonic clock; see `inferd.batching.request.InferenceRequest`.

    ``expected_s`` is the predicted time to its end, if there is one; set by the engine.
    """

    received_at: float
    deadline: float = math.inf
    priority: int = 1
    principal: Principal = _ANYBODY
    enqueued_at: float = 0.0
    turn: tuple[float, int] = (0.0, 0)
    expected_s: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class GenerationRequest(Turn):
    """One request to one version of a language model, checked against its limits.

    ``prompt`` has at least one token, and with ``max_tokens`` fits into the context. ``top_logprobs`` is None if no
    log probabilities are wanted; those of the prompt are if it ``scores_prompt``, and then ``max_tokens`` may be 0.
    ``wants_text`` asks for the text of the deltas. Identity is what tells requests apart.
    """

    prompt: TokenIds
    max_tokens: int
    receiver: Receiver
    sampling: Sampling = Sampling()
    stops: Stops = Stops()
    top_logprobs: int | None = None
    scores_prompt: bool = False
    wants_text: bool = False
    request_id: str = ""

    @property
    def rows(self) -> int:
        """What the request counts in the waiting line: the tokens that its cache has to hold."""
        return len(self.prompt) + self.max_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the prompt."""
        return self.prompt.nbytes
