"""Write one choice of an answer, whole or in pieces, for completions and chats."""

from abc import abstractmethod

from inferd.api.generation.over_http import ChoiceForm, Json
from inferd.api.openai import logprobs
from inferd.generation.request import Candidate, Delta, GenerationRequest
from inferd.models.version import ModelVersion

#: The tokens of the prompt, as vLLM names them.
PROMPT_TOKENS = "prompt_token_ids"


class OpenAiChoice(ChoiceForm):
    """A choice; with ``includes_tokens`` each piece has its token ids, and the first one those of the prompt."""

    def __init__(self, index: int, *, includes_tokens: bool) -> None:
        self._index = index
        self.includes_tokens = includes_tokens
        self._prompt_tokens: list[int] = []
        self._includes_prompt = includes_tokens

    def first(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """See `ChoiceForm.first`."""
        if self.includes_tokens:
            self._prompt_tokens = request.prompt.tolist()
        return self._first(version, request)

    def whole(self, delta: Delta) -> Json:
        """See `ChoiceForm.whole`."""
        # `first` was called, but its piece was not sent.
        self._includes_prompt = self.includes_tokens
        return self._whole(delta)

    @abstractmethod
    def _first(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
        """Return the piece before the generated text, or None."""

    @abstractmethod
    def _whole(self, delta: Delta) -> Json:
        """Return the choice with the whole text."""

    def _tokens(self, delta: Delta) -> Json:
        """Return the tokens of a piece, if they are included."""
        if not self.includes_tokens:
            return {}
        includes_prompt, self._includes_prompt = self._includes_prompt, False
        prompt = {PROMPT_TOKENS: self._prompt_tokens} if includes_prompt else {}
        return {"token_ids": delta.token_ids, **prompt}


class ChatChoice(OpenAiChoice):
    """A message of the assistant."""

    def piece(self, delta: Delta) -> Json:
        """Return the generated piece."""
        return self._piece({"content": delta.text} if delta.text else {}, delta)

    def _whole(self, delta: Delta) -> Json:
        message = {"role": "assistant", "content": delta.text, "refusal": None}
        return {"index": self._index, "message": message, **_end(delta), **self._tokens(delta)}

    def _first(self, version: ModelVersion, request: GenerationRequest) -> Json:  # noqa: ARG002  (of the base)
        return self._piece({"role": "assistant", "content": ""}, Delta(token_ids=[]))

    def _piece(self, content: Json, delta: Delta) -> Json:
        return {"index": self._index, "delta": content, **_end(delta), **self._tokens(delta)}


def _end(delta: Delta) -> Json:
    reason = delta.finish_reason
    return {
        "logprobs": logprobs.of_chat(delta.logprobs) if delta.logprobs else None,
        "finish_reason": None if reason is None else reason.value,
    }


class CompletionChoice(OpenAiChoice):
    """A text that continues a prompt; with ``echo`` after the prompt itself."""

    def __init__(self, index: int, echoed: str | None, *, echo: bool, includes_tokens: bool) -> None:
        super().__init__(index, includes_tokens=includes_tokens)
        #: The prompt, if it is text.
        self._echoed = echoed
        self._echo = echo
        self._before = ""
        #: The first token of the prompt, until the log probabilities of the prompt are sent, if they are wanted.
        self._unscored: Candidate | None = None
        self._offset = 0

    def piece(self, delta: Delta) -> Json:
        """Return the generated piece."""
        return self._whole(delta) if self._unscored is not None else self._choice(delta.text, delta)

    def _whole(self, delta: Delta) -> Json:
        return self._choice(self._before + delta.text, delta)

    def _first(self, version: ModelVersion, request: GenerationRequest) -> Json | None:
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
            scores, self._offset = logprobs.of_completion(tokens, self._offset, self._unscored)
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
