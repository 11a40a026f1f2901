"""Arguments and results of generation: options, deltas and whole answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

#: What is continued: text, or token ids as numbers or a one-dimensional array of integers.
Prompt = str | Sequence[int] | NDArray[np.integer[Any]]

#: A conversation: messages with ``role`` and ``content``, or the text of one message of the user.
Messages = str | Sequence[Mapping[str, str]]


#: Default timeout of a whole answer.
GENERATION_TIMEOUT_S = 600.0


class GenerationOptions(TypedDict, total=False):
    """Options of a generation; those that are left out or None take the model's default.

    ``temperature`` 0 takes the most likely token; otherwise one is drawn among the ``top_k`` most likely ones (0: all),
    those that together have the probability ``top_p``, and those at least ``min_p`` times as likely as the first.
    Requests with equal options and an equal ``seed`` get equal tokens. ``stop`` is a text or several: the answer ends
    before the first of them. ``stop_token_ids`` end it besides the model's end tokens, which ``ignore_end_tokens``
    passes over, and which are not chosen before ``min_tokens``. With ``logprobs``, tokens come with their log
    probability and those of as many most likely ones. The others are as in `Client.infer`.
    """

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_end_tokens: bool
    logprobs: int | None
    version: str
    priority: int
    request_id: str


class FinishReason(StrEnum):
    """Why an answer ended; UNSPECIFIED for a reason that only a newer client knows."""

    UNSPECIFIED = "unspecified"
    #: By an end token, or by a token or text that the request named.
    STOP = "stop"
    #: By ``max_tokens``.
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its log probability. ``token`` is what it stands for, and need not be UTF-8 on its own."""

    token_id: int
    token: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log probability of a chosen token, and those of the most likely ones in descending order."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationUsage:
    """Usage of an answer: tokens, and seconds from admission to the first run of the prompt and to the first token."""

    prompt_tokens: int
    generated_tokens: int
    queue_s: float
    first_token_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """New output since the previous delta; ``finish_reason`` and ``usage`` are set in the last one only.

    ``text`` is what is complete: the beginnings of characters and of stop strings come later. It is empty for a model
    without a tokenizer. ``logprobs`` has one entry for each token, if they were asked for.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish_reason: FinishReason | None = None
    usage: GenerationUsage | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Generated:
    """A whole answer. ``metadata`` is what came with its end."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason
    usage: GenerationUsage
    model: str
    version: str
    request_id: str
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
