"""The parameters of a generation request, independent of the protocol, and the receiver of its output."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inferd.errors import InvalidInputError
from inferd.generation.request import GenerationRequest, Receiver, TokenIds
from inferd.models.version import ModelVersion


@dataclass(frozen=True, slots=True)
class Chat:
    """Messages for the chat template of a model, each with at least ``role`` and ``content``."""

    messages: Sequence[Mapping[str, str]]


#: Plain text, token ids, or a chat.
Prompt = str | Sequence[int] | TokenIds | Chat


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationParams:
    """A generation request as its caller sent it; `Generations` validates it and adds the model's defaults.

    None is for what was not given: the model's default applies. ``priority`` 0 is the model's default. ``logprobs`` is
    the number of most likely tokens to give with each one, None for no log probabilities; with ``scores_prompt`` there
    are those of the prompt too, and ``max_tokens`` may be 0. ``fields`` maps
    attributes to their names in the protocol, for errors, where these differ.
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
    stop_texts: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_end_tokens: bool = False
    logprobs: int | None = None
    scores_prompt: bool = False
    wants_text: bool = True
    priority: int = 0
    timeout_s: float | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    def field_of(self, name: str) -> str:
        """Return the path to attribute ``name`` in the protocol of the request."""
        return self.fields.get(name, name)

    def invalid(self, name: str, text: str) -> InvalidInputError:
        """Return the error that says ``text`` about attribute ``name``."""
        path = self.field_of(name)
        return InvalidInputError(f"{path}: {text}", field=path)

    def name_field(self, error: InvalidInputError) -> None:
        """Name the field of the protocol that ``error`` is about, unless it has one."""
        if error.at is not None and not error.field:
            error.field = self.field_of(str(error.at))

    def too_long(self, name: str, text: str) -> InvalidInputError:
        """Return the error for what does not fit into the context, with the reason that clients of OpenAI look for."""
        error = self.invalid(name, text)
        error.reason = "CONTEXT_LENGTH_EXCEEDED"
        return error


class GenerationReceiver(Receiver, Protocol):
    """Takes what is generated, on the poll thread.

    Once admitted, `on_started` comes first and then the deltas; the last delta or `on_error`, which may be the first
    thing that comes, ends it. Nothing comes once the call has ended or the request was cancelled.
    """

    def on_started(self, version: ModelVersion, request: GenerationRequest, /) -> None:
        """Get the version that generates, and the validated request."""
        ...
