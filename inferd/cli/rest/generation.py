"""Answers of language models over OpenAI's API, as messages of inferd's own. Pure."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.json_format import MessageToDict

from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd.cli.rest.errors import RestError
from inferd.plain_text import clipped, escaped

TEXT_PATH = ("v1", "completions")
CHAT_PATH = ("v1", "chat", "completions")

_FINISH_REASONS = {"stop": pb.FINISH_REASON_STOP, "length": pb.FINISH_REASON_LENGTH}

#: Fields of requests that have other names there. Those that OpenAI lacks have the names that other servers use too.
_STOP_NAMES = {"texts": "stop", "token_ids": "stop_token_ids", "ignore_end_tokens": "ignore_eos"}


def request_body(request: pb.GenerateRequest) -> dict[str, Any]:
    """Return a request for a stream that ends with the usage; what is unset is left out.

    inferd takes a version behind the name of a model there.
    """
    fields = MessageToDict(request, preserving_proto_field_name=True)
    if version := fields.pop("version", ""):
        fields["model"] = f"{request.model}:{version}"
    fields.pop("prompt", None)
    stop = {_STOP_NAMES.get(name, name): value for name, value in fields.pop("stop", {}).items()}
    sampling = fields.pop("sampling", {})
    if "seed" in sampling:  # JSON of protobuf has 64-bit integers as text.
        sampling["seed"] = request.sampling.seed
    if request.prompt.HasField("chat"):
        # JSON of protobuf leaves out empty texts.
        messages = [{"role": each.role, "content": each.content} for each in request.prompt.chat.messages]
        continued: dict[str, Any] = {"messages": messages}
    else:
        continued = {"prompt": request.prompt.text}
    return {**fields, **continued, **sampling, **stop, "stream": True, "stream_options": {"include_usage": True}}


def responses(parts: Iterable[bytes], request_id: str) -> Iterator[pb.GenerateResponse]:
    """Yield a response for each event of a body, which comes in parts. Raises `RestError` for one that is an error."""
    finish_reason, usage = pb.FINISH_REASON_UNSPECIFIED, None
    for event in _events(parts):
        if event.get("error"):
            raise stream_error(event["error"], request_id)
        response = pb.GenerateResponse(model=event.get("model", ""), request_id=request_id)
        for choice in event.get("choices") or ():
            finish_reason = _FINISH_REASONS.get(choice.get("finish_reason"), finish_reason)
            response.text = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        if event.get("usage"):
            usage = _usage(event["usage"])
        if response.text:
            yield response
    if finish_reason and usage is not None:
        yield pb.GenerateResponse(finish_reason=finish_reason, usage=usage)


def stream_error(error: object, request_id: str) -> RestError:
    """Return an error that came in place of an event."""
    content: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    status = str(content.get("code") or "UNKNOWN").upper()
    return RestError(str(content.get("message")), status=status, request_id=request_id)


def _events(parts: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Yield the contents of server-sent events, up to the one that marks the end."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            name, _, value = line.partition(b":")
            if name != b"data":
                continue
            if value.strip() == b"[DONE]":
                return
            yield _event(value)


def _event(value: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(value)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        shown = escaped(clipped(value.decode(errors="replace")))
        raise RestError(f"expected an event of OpenAI's API, got {shown}", status="INTERNAL")
    return content


def _usage(usage: Mapping[str, Any]) -> pb.GenerationUsage:
    return pb.GenerationUsage(
        prompt_tokens=usage.get("prompt_tokens", 0), generated_tokens=usage.get("completion_tokens", 0)
    )
