"""The parameters of a generation request, the same for all protocols, and the receiver of its output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inferd.errors import InvalidInputError
from inferd.generation.request import GenerationRequest, Receiver, TokenIds
from inferd.models.version import ModelVersion


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for a model's chat template, each with at least ``role`` and ``content``."""

    messages: Sequence[Mapping[str, str]]


#: Plain text, token ids, or a chat.
Prompt = str | Sequence[int] | TokenIds | Chat


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationParams:
    """A generation request as its caller sent it; `Generations` validates it and fills in the model's defaults.

    None, or priority 0, stands for the model's default. ``logprobs`` is the number of most likely tokens to return with
    each token, None for no log probabilities; with ``scores_prompt`` the prompt has them too, and ``max_tokens`` may be
    0. ``timeout_s`` starts at receipt. ``choices`` is how many requests with this prompt the call has. For error
    messages, ``fields`` maps attributes to their names in the protocol, where these differ.
    """

    prompt: Prompt
    model: str = ""
    version: str = ""
    request_id: str = ""
    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    stop_strings: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_end_tokens: bool = False
    logprobs: int | None = None
    scores_prompt: bool = False
    wants_text: bool = True
    priority: int = 0
    timeout_s: float | None = None
    choices: int = 1
    fields: Mapping[str, str] = field(default_factory=dict)

    def field_of(self, name: str) -> str:
        """Return the path of attribute ``name`` in the request's protocol."""
        return self.fields.get(name, name)

    def invalid(self, name: str, text: str) -> InvalidInputError:
        """Return an error about attribute ``name``; ``text`` has what was expected and what came."""
        path = self.field_of(name)
        return InvalidInputError(f"{path}: {text}", field=path)

    def name_field(self, error: InvalidInputError) -> None:
        """Set the field of ``error`` from the attribute that it is about, unless it has a field."""
        if error.at is not None and not error.field:
            error.field = self.field_of(str(error.at))

    def too_long(self, name: str, text: str) -> InvalidInputError:
        """Return an error about a context that is too short, with the reason that OpenAI's clients know."""
        error = self.invalid(name, text)
        error.reason = "CONTEXT_LENGTH_EXCEEDED"
        return error


class GenerationReceiver(Receiver, Protocol):
    """Takes the output of a request, on the poll thread.

    The calls are `on_started`, then deltas up to the last one; `on_error` may come in place of any of them, and is then
    the last call. None comes after the end of the RPC or HTTP call, or after a cancel.
    """

    def on_started(self, version: ModelVersion, request: GenerationRequest, /) -> None:
        """Take the model version and the validated request, immediately before the first delta."""
        ...
