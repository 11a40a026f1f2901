"""Generation requests, what they ask for, and what their receivers get."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.batching.queued import Principal
from inferd.errors import ServingError

#: Token ids of a prompt, [tokens].
TokenIds = NDArray[np.int64]

_ANONYMOUS = Principal()


class FinishReason(Enum):
    """Why a generation ended with an answer."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Valid sampling parameters, with the model's defaults in place of what the caller left out.

    They apply in this order: penalties, temperature (0 is greedy), top_k (0 keeps all tokens), top_p, min_p. The same
    ``seed`` and the same position in the answer always draw with the same random number.
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
class StopConditions:
    """What ends a sequence before it has ``max_tokens``.

    ``token_ids`` includes the model's end tokens unless the caller ignores them; none of them is chosen before
    ``min_tokens``. ``strings`` need a tokenizer.
    """

    token_ids: frozenset[int] = frozenset()
    strings: tuple[str, ...] = ()
    min_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token and its natural log probability by the unchanged logits.

    ``text`` are its bytes, which need not be UTF-8 on their own.
    """

    token_id: int
    text: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log probability of a chosen token, and those of the most likely ones in descending order."""

    chosen: Candidate
    top: Sequence[Candidate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens and durations of a complete request; the durations start at its admission."""

    prompt_tokens: int
    generated_tokens: int
    queue_s: float
    first_token_s: float


@dataclass(kw_only=True, slots=True)
class Delta:
    """What was generated since the last delta; the last one of a request has ``finish_reason`` and ``usage``.

    The first one has ``prompt_logprobs`` if the request scores its prompt: those of all its tokens but the first.
    ``text`` leaves out incomplete characters and the beginning of a possible stop string, which later deltas have. It
    is empty without a tokenizer.
    """

    token_ids: list[int]
    text: str = ""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: Usage | None = None


class Receiver(Protocol):
    """Takes the output of one request, on the poll thread, which it must not block.

    A delta with a finish reason, or `on_error`, is the last call.
    """

    def on_delta(self, delta: Delta, /) -> None:
        """Take the next tokens."""
        ...

    def on_error(self, error: ServingError, /) -> None:
        """Take the error that ends the request before its answer is complete."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class QueueEntry:
    """The attributes of a request that the queue reads and sets, as in `inferd.batching.request.InferenceRequest`.

    Times are on the monotonic clock. ``expected_s`` is the predicted time from admission to the end, set by the
    forecast; 0 without a prediction.
    """

    received_at: float
    deadline: float = math.inf
    priority: int = 1
    principal: Principal = _ANONYMOUS
    enqueued_at: float = 0.0
    edf_key: tuple[float, int] = (0.0, 0)
    expected_s: float = 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class GenerationRequest(QueueEntry):
    """One request to one version of a language model, validated against its limits. Compared by identity.

    ``prompt`` has at least one token, and together with ``max_tokens`` fits into the context. ``top_logprobs`` is the
    number of most likely tokens to return with each one, None for no log probabilities. With ``scores_prompt`` those of
    the prompt are returned too, and ``max_tokens`` may be 0. ``wants_text`` asks for the text of the deltas.
    ``choices`` is how many requests with the same prompt come in one call, which fails if one of them does.
    """

    prompt: TokenIds
    max_tokens: int
    receiver: Receiver
    sampling: Sampling = Sampling()
    stops: StopConditions = StopConditions()
    top_logprobs: int | None = None
    scores_prompt: bool = False
    wants_text: bool = False
    choices: int = 1
    request_id: str = ""

    @property
    def rows(self) -> int:
        """The tokens that the request reserves in the cache; they count in the queue as rows of tensors do."""
        return len(self.prompt) + self.max_tokens

    @property
    def nbytes(self) -> int:
        """Bytes of the prompt."""
        return self.prompt.nbytes
