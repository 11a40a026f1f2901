"""The messages of ``GenerationService``: requests to params, and generated output to responses."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.api.generation.params import Chat, GenerationParams, Prompt
from inferd.api.v1.codec import duration_of, timeout_s_of
from inferd.api.wire_scanner import MessageLimits, WireScanner, parse
from inferd.errors import InvalidInputError
from inferd.generation.request import Candidate, Delta, FinishReason, TokenLogprobs, Usage

Sent = TypeVar("Sent", bound=Message)

_SAMPLING = (
    *("repetition_penalty", "frequency_penalty", "presence_penalty"),
    *("temperature", "top_k", "top_p", "min_p", "seed"),
)
#: What the contract calls attributes of `GenerationParams` that are not fields of the request itself.
_FIELDS: Mapping[str, str] = {
    **{name: f"sampling.{name}" for name in _SAMPLING},
    "stop_strings": "stop.texts",
    "stop_token_ids": "stop.token_ids",
    "ignore_end_tokens": "stop.ignore_end_tokens",
    "min_tokens": "stop.min_tokens",
}
_FIELDS_BY_FORM = {form: {**_FIELDS, "prompt": f"prompt.{form}"} for form in ("text", "token_ids", "chat")}

_FINISH_REASONS = {
    FinishReason.STOP: pb.FinishReason.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FinishReason.FINISH_REASON_LENGTH,
}


class GenerationCodec:
    """Reads requests of ``Generate`` and ``Tokenize``; any thread."""

    def __init__(self, limits: MessageLimits) -> None:
        self._scanners: Mapping[type[Message], WireScanner] = {
            request: WireScanner(
                request.DESCRIPTOR,
                raw=frozenset({"inferd.v1.Prompt.text", "inferd.v1.ChatMessage.content"}),
                request_id="inferd.v1.GenerateRequest.request_id",
                lists=frozenset({"inferd.v1.TokenIds"}),
                limits=limits,
            )
            for request in (pb.GenerateRequest, pb.TokenizeRequest)
        }

    def generate(self, message: bytes) -> GenerationParams:
        """Read a `GenerateRequest`. Raises `InvalidInputError`."""
        request = self._parse(pb.GenerateRequest, message)
        form, prompt = _prompt(request.prompt)
        stop = request.stop
        return GenerationParams(
            prompt=prompt,
            model=request.model,
            version=request.version,
            request_id=request.request_id,
            max_tokens=_given(request, "max_tokens"),
            min_tokens=stop.min_tokens,
            **{name: _given(request.sampling, name) for name in _SAMPLING},
            stop_strings=tuple(stop.texts),
            stop_token_ids=tuple(stop.token_ids),
            ignore_end_tokens=stop.ignore_end_tokens,
            logprobs=_given(request, "logprobs"),
            priority=request.priority,
            timeout_s=timeout_s_of(request.timeout) if request.HasField("timeout") else None,
            fields=_FIELDS_BY_FORM[form],
        )

    def tokenize(self, message: bytes) -> GenerationParams:
        """Read a `TokenizeRequest`. Raises `InvalidInputError`."""
        request = self._parse(pb.TokenizeRequest, message)
        form, prompt = _prompt(request.prompt)
        return GenerationParams(
            prompt=prompt, model=request.model, version=request.version, fields=_FIELDS_BY_FORM[form]
        )

    def _parse(self, kind: type[Sent], message: bytes) -> Sent:
        self._scanners[kind].scan(message)
        return parse(kind, message)


def _prompt(prompt: pb.Prompt) -> tuple[str, Prompt]:
    form = prompt.WhichOneof("form")
    if form == "text":
        return form, prompt.text
    if form == "token_ids":
        ids = prompt.token_ids.ids
        return form, np.fromiter(ids, np.int64, len(ids))
    if form == "chat":
        return form, Chat([{"role": each.role, "content": each.content} for each in prompt.chat.messages])
    raise InvalidInputError("prompt: expected text, token_ids or chat, got none", field="prompt")


def _given(message: Message, name: str) -> Any:  # noqa: ANN401  (a number of the type of the field)
    return getattr(message, name) if message.HasField(name) else None


def response_of(delta: Delta) -> pb.GenerateResponse:
    """Return the response with what was generated."""
    response = pb.GenerateResponse(token_ids=delta.token_ids, text=delta.text)
    if delta.logprobs:
        response.logprobs.extend(map(_logprobs, delta.logprobs))
    if delta.finish_reason is not None:
        response.finish_reason = _FINISH_REASONS[delta.finish_reason]
    if delta.usage is not None:
        response.usage.CopyFrom(_usage(delta.usage))
    return response


def _logprobs(logprobs: TokenLogprobs) -> pb.TokenLogprobs:
    return pb.TokenLogprobs(chosen=_logprob(logprobs.chosen), top=[_logprob(each) for each in logprobs.top])


def _logprob(candidate: Candidate) -> pb.TokenLogprob:
    return pb.TokenLogprob(token_id=candidate.token_id, token=candidate.text, logprob=candidate.logprob)


def _usage(usage: Usage) -> pb.GenerationUsage:
    return pb.GenerationUsage(
        prompt_tokens=usage.prompt_tokens,
        generated_tokens=usage.generated_tokens,
        queue_time=duration_of(usage.queue_s),
        first_token_time=duration_of(usage.first_token_s),
    )
