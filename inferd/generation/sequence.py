"""A request that has started: its place in the cache, and how far it is."""

from inferd.generation.output import SequenceOutput
from inferd.generation.ports import TextCodec
from inferd.generation.request import Delta, FinishReason, GenerationRequest, TokenLogprobs, Usage
from inferd.generation.sampler import SequenceSampling


class GeneratingSequence:
    """One request from its first run to its end.

    ``length`` is the number of its tokens in the cache; while that is less than its prompt, it is prefilling.
    ``last_token`` is the next to go in. Used by the engine's thread, which calls `prepare` first; ``removed_for`` is
    set by others when nobody waits for it any more: one of the `FINISH_REASONS`.
    """

    __slots__ = (
        "first_token_at",
        "generated",
        "last_token",
        "last_token_at",
        "length",
        "output",
        "prompt_logprobs",
        "removed_for",
        "request",
        "sampling",
        "slot",
        "started_at",
    )

    sampling: SequenceSampling
    output: SequenceOutput

    def __init__(self, request: GenerationRequest, now: float) -> None:
        self.request = request
        self.slot = -1
        self.length = 0
        self.last_token = -1
        self.generated = 0
        #: Of the tokens of the prompt that were read, until the first delta.
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.started_at = now
        self.first_token_at = self.last_token_at = 0.0
        self.removed_for = ""

    def prepare(self, text: TextCodec | None) -> None:
        """Make what chooses the tokens and makes text of them."""
        self.sampling = SequenceSampling(self.request)
        self.output = SequenceOutput(self.request, text)

    @property
    def prompt_left(self) -> int:
        """The tokens of the prompt that are not in the cache yet."""
        return len(self.request.prompt) - self.length

    def add(self, token: int, logprobs: TokenLogprobs | None, now: float) -> Delta:
        """Add a generated ``token``; return what the caller gets, with a reason to finish if that was the last."""
        self.last_token = token
        self.generated += 1
        self.last_token_at = now
        if self.generated == 1:
            self.first_token_at = now
        text, stopped = self.output.add(token)
        delta = Delta(token_ids=[token], text=text, prompt_logprobs=self._take_prompt_logprobs())
        if logprobs is not None:
            delta.logprobs.append(logprobs)
        if stopped:
            delta.finish_reason = FinishReason.STOP
        elif self.generated == self.request.max_tokens:
            delta.text += self.output.end()
            delta.finish_reason = FinishReason.LENGTH
        if delta.finish_reason is not None:
            delta.usage = self._usage()
        return delta

    def end_with_prompt(self, now: float) -> Delta:
        """Return what the caller gets of a sequence that generates no tokens."""
        self.first_token_at = now
        scores = self._take_prompt_logprobs()
        return Delta(token_ids=[], prompt_logprobs=scores, finish_reason=FinishReason.LENGTH, usage=self._usage())

    def _take_prompt_logprobs(self) -> list[TokenLogprobs]:
        taken, self.prompt_logprobs = self.prompt_logprobs, []
        return taken

    def _usage(self) -> Usage:
        request = self.request
        return Usage(
            prompt_tokens=len(request.prompt),
            generated_tokens=self.generated,
            queue_s=self.started_at - request.enqueued_at,
            first_token_s=self.first_token_at - request.enqueued_at,
        )
