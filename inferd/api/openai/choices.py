"""One choice of an answer, whole or piece by piece, as completions and chats have it."""

from inferd.api.generation.over_http import ChoiceForm, Json
from inferd.api.openai import logprobs
from inferd.generation.request import Delta, GenerationRequest
from inferd.models.version import ModelVersion


class ChatChoice(ChoiceForm):
    """A message of the assistant."""

    def __init__(self, index: int) -> None:
        self._index = index

    def first(self, version: ModelVersion, request: GenerationRequest) -> Json:  # noqa: ARG002  (of the base)
        """Return the role."""
        return self._piece({"role": "assistant", "content": ""}, Delta(token_ids=[]))

    def piece(self, delta: Delta) -> Json:
        """Return what was generated."""
        return self._piece({"content": delta.text} if delta.text else {}, delta)

    def whole(self, delta: Delta) -> Json:
        """Return the message."""
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"index": self._index, "message": message, **_end(delta)}

    def _piece(self, content: Json, delta: Delta) -> Json:
        return {"index": self._index, "delta": content, **_end(delta)}


def _end(delta: Delta) -> Json:
    reason = delta.finish_reason
    return {
        "logprobs": logprobs.of_chat(delta.logprobs) if delta.logprobs else None,
        "finish_reason": None if reason is None else reason.value,
    }


class CompletionChoice(ChoiceForm):
    """A text that continues a prompt; after the prompt itself if that is to be echoed."""

    def __init__(self, index: int, echoed: str | None, *, echo: bool) -> None:
        self._index = index
        #: The prompt, if it is text and to be echoed.
        self._echoed = echoed
        self._echo = echo
        self._before = ""
        self._offset = 0

    def first(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """Return the prompt, if it is to be echoed."""
        if not self._echo:
            return None
        self._before = self._prompt(version, request)
        return self._choice(self._before, Delta(token_ids=[]))

    def piece(self, delta: Delta) -> Json:
        """Return what was generated."""
        return self._choice(delta.text, delta)

    def whole(self, delta: Delta) -> Json:
        """Return the text."""
        return self._choice(self._before + delta.text, delta)

    def _choice(self, text: str, delta: Delta) -> Json:
        reason, scores = delta.finish_reason, None
        if delta.logprobs:
            scores, self._offset = logprobs.of_completion(delta.logprobs, self._offset)
        return {
            "index": self._index,
            "text": text,
            "logprobs": scores,
            "finish_reason": None if reason is None else reason.value,
        }

    def _prompt(self, version: ModelVersion, request: GenerationRequest) -> str:
        if self._echoed is not None:
            return self._echoed
        text = version.text
        return "" if text is None else b"".join(map(text.token_bytes, request.prompt.tolist())).decode(errors="replace")
