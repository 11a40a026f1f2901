"""Write answers of OpenAI's API, whole or in events: the object, its choices, and their log probabilities."""

import time
from abc import abstractmethod
from collections.abc import Sequence

import orjson

from inferd.api.generation.http_reply import AnswerWriter, ChoiceWriter, Json
from inferd.api.json_messages import json_answer
from inferd.api.openai.requests import TextRequest
from inferd.generation.request import Candidate, Delta, GenerationRequest, TokenLogprobs, Usage
from inferd.http.messages import HttpBody
from inferd.models.version import ModelVersion

#: The member with the token ids of the prompt, as in vLLM.
PROMPT_TOKENS = "prompt_token_ids"

_DONE = b"data: [DONE]\n\n"


class OpenAiAnswer(AnswerWriter):
    """Writes the answer to ``request``; its id has that of the call."""

    #: Prefix of the id, and the ``object`` of whole answers and of events.
    _id_prefix: str
    _object: str
    _chunk: str

    def __init__(self, request: TextRequest, call_id: str) -> None:
        self._request = request
        self._id = f"{self._id_prefix}-{call_id}"
        self._created = int(time.time())
        self._head = b"data: " + orjson.dumps(self._described(self._chunk))[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if request.include_usage else b"]}\n\n"

    @abstractmethod
    def choice(self, index: int) -> ChoiceWriter:
        """See `AnswerWriter.choice`."""

    def whole(self, choices: Sequence[Json], usages: Sequence[Usage]) -> HttpBody:
        """See `AnswerWriter.whole`."""
        beside = self._beside(choices)
        return json_answer(
            {**self._described(self._object), "choices": choices, "usage": self._usage(usages), **beside}
        )

    def event(self, choice: Json) -> bytes:
        """See `AnswerWriter.event`."""
        beside = self._beside([choice])
        tail = b"]," + orjson.dumps(beside)[1:-1] + self._tail[1:] if beside else self._tail
        return self._head + orjson.dumps(choice) + tail

    def end(self, usages: Sequence[Usage]) -> bytes:
        """See `AnswerWriter.end`."""
        if not self._request.include_usage:
            return _DONE
        return self._head + b'],"usage":' + orjson.dumps(self._usage(usages)) + b"}\n\n" + _DONE

    def error(self, body: bytes) -> bytes:
        """See `AnswerWriter.error`."""
        return b"data: " + body + b"\n\n" + _DONE

    def _beside(self, choices: Sequence[Json]) -> Json:  # noqa: ARG002  (for subclasses)
        """Move members that belong to the answer out of ``choices``, and return them."""
        return {}

    def _described(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._request.model}

    def _usage(self, usages: Sequence[Usage]) -> Json:
        """Return the token counts; the tokens of a prompt count once for all its choices."""
        prompts = sum(usage.prompt_tokens for usage in usages[:: self._request.choices])
        generated = sum(usage.generated_tokens for usage in usages)
        return {"prompt_tokens": prompts, "completion_tokens": generated, "total_tokens": prompts + generated}


class CompletionAnswer(OpenAiAnswer):
    """Writes the answer to a completion."""

    _id_prefix = "cmpl"
    _object = _chunk = "text_completion"

    def choice(self, index: int) -> ChoiceWriter:
        """See `AnswerWriter.choice`."""
        request = self._request
        prompt = request.params[index].prompt
        echoed = prompt if isinstance(prompt, str) else None
        return CompletionChoice(index, echoed, echo=request.echo, includes_tokens=request.token_ids)


class ChatAnswer(OpenAiAnswer):
    """Writes the answer to a chat completion."""

    _id_prefix = "chatcmpl"
    _object = "chat.completion"
    _chunk = "chat.completion.chunk"

    def choice(self, index: int) -> ChoiceWriter:
        """See `AnswerWriter.choice`."""
        return ChatChoice(index, includes_tokens=self._request.token_ids)

    def _beside(self, choices: Sequence[Json]) -> Json:
        """Move the token ids of the prompt, which all choices share, out of ``choices``."""
        found = [choice.pop(PROMPT_TOKENS) for choice in choices if PROMPT_TOKENS in choice]
        return {PROMPT_TOKENS: found[0]} if found else {}


class OpenAiChoice(ChoiceWriter):
    """Writes a choice; with ``includes_tokens`` each piece has its token ids, the first one those of the prompt too."""

    def __init__(self, index: int, *, includes_tokens: bool) -> None:
        self._index = index
        self.includes_tokens = includes_tokens
        self._prompt_tokens: list[int] = []
        self._includes_prompt = includes_tokens

    def prefix(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """See `ChoiceWriter.prefix`."""
        if self.includes_tokens:
            self._prompt_tokens = request.prompt.tolist()
        return self._prefix(version, request)

    def whole(self, delta: Delta) -> Json:
        """See `ChoiceWriter.whole`."""
        # The piece of `prefix`, which had them, was not sent.
        self._includes_prompt = self.includes_tokens
        return self._whole(delta)

    @abstractmethod
    def _prefix(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """Return the piece before the generated text, or None."""

    @abstractmethod
    def _whole(self, delta: Delta) -> Json:
        """Return the choice with the whole text."""

    def _tokens(self, delta: Delta) -> Json:
        """Return the members with the token ids of a piece, if they are included."""
        if not self.includes_tokens:
            return {}
        includes_prompt, self._includes_prompt = self._includes_prompt, False
        prompt = {PROMPT_TOKENS: self._prompt_tokens} if includes_prompt else {}
        return {"token_ids": delta.token_ids, **prompt}


class ChatChoice(OpenAiChoice):
    """Writes a choice of a chat completion: a message of the assistant."""

    def piece(self, delta: Delta) -> Json:
        """See `ChoiceWriter.piece`."""
        return self._piece({"content": delta.text} if delta.text else {}, delta)

    def _whole(self, delta: Delta) -> Json:
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"index": self._index, "message": message, **_end(delta), **self._tokens(delta)}

    def _prefix(self, version: ModelVersion, request: GenerationRequest) -> Json:  # noqa: ARG002  (of the base)
        return self._piece({"role": "assistant", "content": ""}, Delta(token_ids=[]))

    def _piece(self, content: Json, delta: Delta) -> Json:
        return {"index": self._index, "delta": content, **_end(delta), **self._tokens(delta)}


def _end(delta: Delta) -> Json:
    reason = delta.finish_reason
    return {
        "logprobs": chat_logprobs(delta.logprobs) if delta.logprobs else None,
        "finish_reason": None if reason is None else reason.value,
    }


class CompletionChoice(OpenAiChoice):
    """Writes a choice of a completion: the text that continues a prompt, with ``echo`` after the prompt itself.

    ``echoed`` is the prompt if it is text; others are detokenized.
    """

    def __init__(self, index: int, echoed: str | None, *, echo: bool, includes_tokens: bool) -> None:
        super().__init__(index, includes_tokens=includes_tokens)
        self._echoed = echoed
        self._echo = echo
        self._before = ""
        # The first token of a scored prompt, which has no log probability, until those of the other tokens are written.
        self._unscored: Candidate | None = None
        self._offset = 0

    def piece(self, delta: Delta) -> Json:
        """See `ChoiceWriter.piece`."""
        return self._whole(delta) if self._unscored is not None else self._choice(delta.text, delta)

    def _whole(self, delta: Delta) -> Json:
        return self._choice(self._before + delta.text, delta)

    def _prefix(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        if not self._echo:
            return None
        self._before = self._prompt(version, request)
        if request.scores_prompt:
            token = int(request.prompt[0])
            text = version.text
            self._unscored = Candidate(token, b"" if text is None else text.token_bytes(token), 0.0)
            return None
        return self._choice(self._before, Delta(token_ids=[]))

    def _choice(self, text: str, delta: Delta) -> Json:
        reason, scores = delta.finish_reason, None
        if delta.logprobs or self._unscored is not None:
            tokens = [*delta.prompt_logprobs, *delta.logprobs]
            scores, self._offset = completion_logprobs(tokens, self._offset, self._unscored)
            self._unscored = None
        return {
            "index": self._index,
            "text": text,
            "logprobs": scores,
            "finish_reason": None if reason is None else reason.value,
            **self._tokens(delta),
        }

    def _prompt(self, version: ModelVersion, request: GenerationRequest) -> str:
        if self._echoed is not None:
            return self._echoed
        text = version.text
        return "" if text is None else b"".join(map(text.token_bytes, request.prompt.tolist())).decode(errors="replace")


def chat_logprobs(tokens: Sequence[TokenLogprobs]) -> Json:
    """Return the log probabilities of a piece of a chat completion."""
    return {
        "content": [{**_chat_token(each.chosen), "top_logprobs": list(map(_chat_token, each.top))} for each in tokens],
        "refusal": None,
    }


def completion_logprobs(
    tokens: Sequence[TokenLogprobs], offset: int, first: Candidate | None = None
) -> tuple[Json, int]:
    """Return the log probabilities of a piece of a completion that begins at character ``offset``, and its end offset.

    ``first`` is the first token of a prompt, which has no log probability. The offsets after tokens that are not UTF-8
    on their own are approximate.
    """
    form: Json = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    unscored = [] if first is None else [(first, None, None)]
    scored = [(each.chosen, each.chosen.logprob, _logprobs_by_text(each)) for each in tokens]
    for token, logprob, top in [*unscored, *scored]:
        form["tokens"].append(_token_text(token))
        form["token_logprobs"].append(logprob)
        form["top_logprobs"].append(top)
        form["text_offset"].append(offset)
        offset += len(token.text.decode(errors="replace"))
    return form, offset


def _chat_token(candidate: Candidate) -> Json:
    text = candidate.text
    return {"token": text.decode(errors="replace"), "logprob": candidate.logprob, "bytes": list(text)}


def _logprobs_by_text(token: TokenLogprobs) -> dict[str, float]:
    """Return the log probabilities of the most likely tokens and of the chosen one, by their text."""
    found: dict[str, float] = {}
    for candidate in (*token.top, token.chosen):
        found.setdefault(_token_text(candidate), candidate.logprob)
    return found


def _token_text(candidate: Candidate) -> str:
    """Return the text of a token, distinct for each token: bytes that are not UTF-8 have OpenAI's form.

    A token without text, as of a model without a tokenizer, has vLLM's form.
    """
    text = candidate.text
    if not text:
        return f"token_id:{candidate.token_id}"
    try:
        return text.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in text)
