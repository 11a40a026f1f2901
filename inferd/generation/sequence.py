"""A request that has started: its slot in the KV cache, and its progress."""

from inferd.generation.output import SequenceOutput
from inferd.generation.ports import Detokenizer
from inferd.generation.request import Delta, FinishReason, GenerationRequest, TokenLogprobs, Usage
from inferd.generation.sampler import SequenceSampling


class GeneratingSequence:
    """One request from its first run to its end.

    ``length`` is the number of its tokens in the cache; while that is less than its prompt, it is prefilling.
    ``last_token`` is the token of its next decode step. Used by the engine's thread, which calls `prepare` first.
    Other threads set ``removal_reason``, one of the `FINISH_REASONS`, when the request was cancelled or failed.
    """

    __slots__ = (
        "first_token_at",
        "generated",
        "last_token",
        "last_token_at",
        "length",
        "output",
        "prompt_logprobs",
        "removal_reason",
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
        #: Those of the prompt's tokens that have run, until the first delta has them.
        self.prompt_logprobs: list[TokenLogprobs] = []
        self.started_at = now
        self.first_token_at = self.last_token_at = 0.0
        self.removal_reason = ""

    def prepare(self, detokenizer: Detokenizer | None) -> None:
        """Create the sampling state and the text output; not in the constructor, which runs under a lock."""
        self.sampling = SequenceSampling(self.request)
        self.output = SequenceOutput(self.request, detokenizer)

    @property
    def prompt_left(self) -> int:
        """The number of prompt tokens that are not in the cache yet."""
        return len(self.request.prompt) - self.length

    def add(self, token: int, logprobs: TokenLogprobs | None, now: float) -> Delta:
        """Append a generated ``token``; return its delta, with a finish reason if it is the last one."""
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
        """Return the only delta of a sequence that generates no tokens (``max_tokens`` 0)."""
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
