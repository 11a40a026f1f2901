"""Write answers of OpenAI's API: the object or event around the choices."""

import time
from abc import abstractmethod
from collections.abc import Sequence

import orjson

from inferd.api.generation.over_http import AnswerForm, ChoiceForm, Json
from inferd.api.json_messages import json_answer
from inferd.api.openai.choices import PROMPT_TOKENS, ChatChoice, CompletionChoice
from inferd.api.openai.requests import TextRequest
from inferd.generation.request import Usage
from inferd.http.messages import HttpBody

_DONE = b"data: [DONE]\n\n"


class OpenAiAnswer(AnswerForm):
    """Writes the answer to a ``request``; its id is that of the call."""

    #: Prefix of the id; type of a whole answer, and of an event.
    _prefix: str
    _object: str
    _chunk: str

    def __init__(self, request: TextRequest, call_id: str) -> None:
        self._request = request
        self._id = f"{self._prefix}-{call_id}"
        self._created = int(time.time())
        self._head = b"data: " + orjson.dumps(self._described(self._chunk))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if request.include_usage else b"]}\n\n"

    @abstractmethod
    def choice(self, index: int) -> ChoiceForm:
        """See `AnswerForm.choice`."""

    def whole(self, choices: Sequence[Json], usages: Sequence[Usage]) -> HttpBody:
        """See `AnswerForm.whole`."""
        beside = self._beside(choices)
        return json_answer(
            {**self._described(self._object), "choices": choices, "usage": self._usage(usages), **beside}
        )

    def event(self, choice: Json) -> bytes:
        """See `AnswerForm.event`."""
        beside = self._beside([choice])
        tail = b"]," + orjson.dumps(beside)[1:-1] + self._tail[1:] if beside else self._tail
        return self._head + orjson.dumps(choice) + tail

    def last(self, usages: Sequence[Usage]) -> bytes:
        """See `AnswerForm.last`."""
        if not self._request.include_usage:
            return _DONE
        return self._head + b'],"usage":' + orjson.dumps(self._usage(usages)) + b"}\n\n" + _DONE

    def error(self, body: bytes) -> bytes:
        """See `AnswerForm.error`."""
        return b"data: " + body + b"\n\n" + _DONE

    def _beside(self, choices: Sequence[Json]) -> Json:  # noqa: ARG002  (of answers that have some)
        """Move members that belong beside the choices out of ``choices``."""
        return {}

    def _described(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _usage(self, usages: Sequence[Usage]) -> Json:
        """Return the token counts; the tokens of a prompt count once for all its choices."""
        prompts = sum(usage.prompt_tokens for usage in usages[:: self._request.choices])
        generated = sum(usage.generated_tokens for usage in usages)
        return {"prompt_tokens": prompts, "completion_tokens": generated, "total_tokens": prompts + generated}


class CompletionAnswer(OpenAiAnswer):
    """The answer to a completion."""

    _prefix = "cmpl"
    _object = _chunk = "text_completion"

    def choice(self, index: int) -> ChoiceForm:
        """See `AnswerForm.choice`."""
        request = self._request
        prompt = request.params[index].prompt
        echoed = prompt if isinstance(prompt, str) else None
        return CompletionChoice(index, echoed, echo=request.echo, includes_tokens=request.token_ids)


class ChatAnswer(OpenAiAnswer):
    """The answer to a chat."""

    _prefix = "chatcmpl"
    _object = "chat.completion"
    _chunk = "chat.completion.chunk"

    def choice(self, index: int) -> ChoiceForm:
        """See `AnswerForm.choice`."""
        return ChatChoice(index, includes_tokens=self._request.token_ids)

    def _beside(self, choices: Sequence[Json]) -> Json:
        """Move the tokens of the prompt, which all choices share, out of ``choices``."""
        found = [choice.pop(PROMPT_TOKENS) for choice in choices if PROMPT_TOKENS in choice]
        return {PROMPT_TOKENS: found[0]} if found else {}
