"""Convert between the messages of GenerationService and the client's types. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

import numpy as np

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.arguments import checked_flag, checked_integer, checked_number, checked_text
from inferd.client.errors import Internal
from inferd.client.generation import (
    Delta,
    FinishReason,
    Generated,
    GenerationOptions,
    GenerationUsage,
    TokenLogprob,
    TokenLogprobs,
)
from inferd.client.messages import checked_request_id

_UINT32 = 2**32 - 1
_UINT64 = 2**64 - 1
_KNOWN = GenerationOptions.__annotations__.keys()

_MESSAGE_KEYS = {"role", "content"}


def _real(name: str, value: object) -> float:
    # Rejects NaN; what is allowed of the others, the server says.
    return checked_number(name, value, -inf)


def _count(name: str, value: object) -> int:
    return checked_integer(name, value, 0, _UINT32)


_SAMPLING: dict[str, Callable[[str, object], float]] = {
    "repetition_penalty": _real,
    "frequency_penalty": _real,
    "presence_penalty": _real,
    "temperature": _real,
    "top_k": _count,
    "top_p": _real,
    "min_p": _real,
    "seed": lambda name, value: checked_integer(name, value, 0, _UINT64),
}


def text_or_ids(prompt: object) -> pb.Prompt:
    """Return a prompt to continue. Raises `TypeError` or `ValueError` naming the argument."""
    if isinstance(prompt, str):
        return pb.Prompt(text=checked_text("prompt", prompt))
    return pb.Prompt(token_ids=pb.TokenIds(ids=_token_ids("prompt", prompt)))


def chat(messages: object) -> pb.Prompt:
    """Return a conversation to continue. Raises `TypeError` or `ValueError` naming the argument."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if isinstance(messages, bytes | Mapping) or not isinstance(messages, Iterable):
        raise TypeError(f"messages: expected a str, or mappings with role and content, got {type(messages).__name__}")
    return pb.Prompt(chat=pb.Chat(messages=[_message(number, each) for number, each in enumerate(messages)]))


def _message(number: int, message: object) -> pb.ChatMessage:
    name = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise TypeError(f"{name}: expected a mapping with role and content, got {type(message).__name__}")
    if message.keys() != _MESSAGE_KEYS:
        got = ", ".join(map(str, message)) or "nothing"
        raise ValueError(f"{name}: expected role and content, got {got}")
    return pb.ChatMessage(**{key: checked_text(f"{name}.{key}", value) for key, value in message.items()})


def generate_request(model: str, prompt: pb.Prompt, options: Mapping[str, object]) -> pb.GenerateRequest:
    """Return a request with `GenerationOptions`. Raises `TypeError` or `ValueError` naming the argument."""
    unknown = options.keys() - _KNOWN
    if unknown:
        raise TypeError(f"{min(unknown)}: expected one of {', '.join(_KNOWN)}")
    given = {name: value for name, value in options.items() if value is not None}
    sampling = {name: check(name, given[name]) for name, check in _SAMPLING.items() if name in given}
    return pb.GenerateRequest(
        model=checked_text("model", model),
        version=checked_text("version", given.get("version", "")),
        request_id=checked_request_id(given.get("request_id", "")),
        prompt=prompt,
        sampling=pb.Sampling(**sampling),  # type: ignore[arg-type] # integers are those of integer fields
        max_tokens=_optional_count("max_tokens", given),
        stop=_stop(given),
        logprobs=_optional_count("logprobs", given),
        priority=_count("priority", given.get("priority", 0)),
    )


def _optional_count(name: str, given: Mapping[str, object]) -> int | None:
    return _count(name, given[name]) if name in given else None


def _stop(given: Mapping[str, object]) -> pb.StopConditions:
    texts = given.get("stop", ())
    if isinstance(texts, str):
        texts = (texts,)
    if isinstance(texts, bytes | Mapping) or not isinstance(texts, Iterable):
        raise TypeError(f"stop: expected a str or several, got {type(texts).__name__}")
    return pb.StopConditions(
        texts=[checked_text("stop", text) for text in texts],
        token_ids=_token_ids("stop_token_ids", given.get("stop_token_ids", ())),
        ignore_end_tokens=checked_flag("ignore_end_tokens", given.get("ignore_end_tokens", False)),
        min_tokens=_count("min_tokens", given.get("min_tokens", 0)),
    )


def _token_ids(name: str, value: object) -> list[int]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray):
        raise TypeError(
            f"{name}: expected {'a str or ' if name == 'prompt' else ''}token ids, got {type(value).__name__}"
        )
    return [checked_integer(name, each, 0, _UINT32) for each in value]


class Collected:
    """Collects the responses to one request. The first one says which model and version generates."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.model = ""
        self.version = ""
        self.metadata: Mapping[str, str | bytes] = {}
        self._deltas: list[Delta] = []

    @property
    def text(self) -> str:
        """What has come so far."""
        return "".join(delta.text for delta in self._deltas)

    @property
    def is_complete(self) -> bool:
        """Whether the last response has come."""
        return bool(self._deltas) and self._deltas[-1].finish_reason is not None

    def add(self, response: pb.GenerateResponse) -> Delta:
        """Take the next response and return what it adds."""
        if not self._deltas:
            self.model, self.version = response.model, response.version
        delta = _delta(response)
        self._deltas.append(delta)
        return delta

    def whole(self) -> Generated:
        """Return all of it. Raises `Internal` if the stream ended before the last response."""
        last = self._deltas[-1] if self._deltas else None
        if last is None or last.finish_reason is None or last.usage is None:
            raise Internal("the stream ended before the answer did", request_id=self.request_id)
        return Generated(
            text=self.text,
            token_ids=tuple(token_id for delta in self._deltas for token_id in delta.token_ids),
            logprobs=tuple(entry for delta in self._deltas for entry in delta.logprobs),
            finish_reason=last.finish_reason,
            usage=last.usage,
            model=self.model,
            version=self.version,
            request_id=self.request_id,
            metadata=self.metadata,
        )


def _delta(response: pb.GenerateResponse) -> Delta:
    return Delta(
        text=response.text,
        token_ids=tuple(response.token_ids),
        logprobs=tuple(map(_logprobs, response.logprobs)),
        finish_reason=_finish_reason(response.finish_reason) if response.finish_reason else None,
        usage=_usage(response.usage) if response.HasField("usage") else None,
    )


def _finish_reason(number: pb.FinishReason.ValueType) -> FinishReason:
    names = {value: name.removeprefix("FINISH_REASON_").lower() for name, value in pb.FinishReason.items()}
    return FinishReason(names.get(number, "unspecified"))


def _usage(usage: pb.GenerationUsage) -> GenerationUsage:
    return GenerationUsage(
        prompt_tokens=usage.prompt_tokens,
        generated_tokens=usage.generated_tokens,
        queue_s=usage.queue_time.ToNanoseconds() / 1e9,
        first_token_s=usage.first_token_time.ToNanoseconds() / 1e9,
    )


def _logprobs(entry: pb.TokenLogprobs) -> TokenLogprobs:
    return TokenLogprobs(chosen=_logprob(entry.chosen), top=tuple(map(_logprob, entry.top)))


def _logprob(entry: pb.TokenLogprob) -> TokenLogprob:
    return TokenLogprob(token_id=entry.token_id, token=entry.token, logprob=entry.logprob)
