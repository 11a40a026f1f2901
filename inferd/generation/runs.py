"""Prefill chunks and decode steps: the runs of the decoder, the tokens chosen from them, and failed runs."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from inferd.batching.ports import Clock
from inferd.errors import InferenceFailedError, OutOfMemoryError, RunTooLongError, ServingError
from inferd.generation.logprobs import prompt_logprobs, token_logprobs
from inferd.generation.ports import Decoder, Detokenizer
from inferd.generation.request import Delta, TokenLogprobs
from inferd.generation.run_limit import RunLimit
from inferd.generation.sampler import NO_TOKEN, choose_tokens
from inferd.generation.sequence import GeneratingSequence
from inferd.observability.metrics.generation import GenerationStats
from inferd.runtime.errors import RunFailure, failure_of
from inferd.runtime.signature import Logits

_logger = logging.getLogger("inferd.generation")

#: A sequence with its output of a run.
Result = tuple[GeneratingSequence, Delta | ServingError]


class ModelRuns:
    """Makes the runs that the scheduler chose; used by the engine's thread.

    A failed step is repeated for each of its sequences alone, so that only those fail that cannot run; the others get
    the same tokens as without the failure. Nothing is raised.
    """

    def __init__(
        self,
        *,
        name: str,
        decoder: Decoder,
        detokenizer: Detokenizer | None,
        limit: RunLimit,
        clock: Clock,
        stats: GenerationStats,
    ) -> None:
        self._name = name
        self._decoder = decoder
        self._detokenizer = detokenizer
        self._limit = limit
        self._clock = clock
        self._stats = stats

    def prefill(self, sequence: GeneratingSequence, tokens: int) -> list[Result]:
        """Run the next ``tokens`` of a prompt; the last ones of a prompt give the first generated token."""
        began_at = self._clock()
        past = sequence.length
        request = sequence.request
        ids = request.prompt[past : past + tokens]
        run = self._decoder.score if request.scores_prompt else self._decoder.prefill
        logits = self._attempt([sequence], lambda: run(sequence.slot, ids, past))
        seconds = self._clock() - began_at
        if isinstance(logits, Exception):
            self._stats.run_failed(1, seconds)
            return [(sequence, self._serving_error(logits, sequence))]
        self._stats.prefill(tokens, seconds)
        sequence.length += tokens
        if request.scores_prompt and not self._add_prompt_logprobs(sequence, past, logits):
            return [(sequence, InferenceFailedError())]
        if sequence.prompt_left:
            return []
        if not request.max_tokens:
            return [(sequence, sequence.end_with_prompt(self._clock()))]
        return self._add_tokens([sequence], logits[np.newaxis] if logits.ndim == 1 else logits[-1:])

    def _add_prompt_logprobs(self, sequence: GeneratingSequence, past: int, logits: Logits) -> bool:
        """Add those of the tokens that follow each row of ``logits``; return False on error."""
        request = sequence.request
        following = request.prompt[past + 1 : past + 1 + len(logits)].tolist()
        try:
            sequence.prompt_logprobs += prompt_logprobs(logits, following, request.top_logprobs or 0, self._detokenizer)
        except Exception:
            _logger.exception("log probabilities of a prompt of model %s failed", self._name)
            return False
        return True

    def decode(self, sequences: Sequence[GeneratingSequence]) -> list[Result]:
        """Run a step: generate the next token of each of ``sequences``, which have the slots from 0."""
        began_at = self._clock()
        ids = [sequence.last_token for sequence in sequences]
        past = [sequence.length for sequence in sequences]
        logits = self._attempt(sequences, lambda: self._decoder.decode(ids, past))
        seconds = self._clock() - began_at
        if isinstance(logits, Exception):
            self._stats.run_failed(len(sequences), seconds)
            return self._repeat_failed(logits, sequences)
        self._stats.step(len(sequences), seconds)
        for sequence in sequences:
            sequence.length += 1
        return self._add_tokens(sequences, logits)

    def _attempt(self, sequences: Sequence[GeneratingSequence], run: Callable[[], Logits]) -> Logits | Exception:
        logits: Logits | Exception
        self._limit.begin(sequences)
        try:
            logits = run()
        except Exception as error:  # noqa: BLE001  whatever a run raises ends the run, and not the engine
            logits = error
        if self._limit.end():
            return RunTooLongError("the model ran for longer than a run may take")
        return logits

    def _repeat_failed(self, error: Exception, sequences: Sequence[GeneratingSequence]) -> list[Result]:
        """Return the results of ``sequences`` whose step failed with ``error``."""
        if len(sequences) == 1 or isinstance(error, ServingError):
            return [(sequence, self._serving_error(error, sequence)) for sequence in sequences]
        _logger.warning("a step of %d sequences of model %s failed: %r", len(sequences), self._name, error)
        return [result for sequence in sequences for result in self._decode_alone(sequence)]

    def _decode_alone(self, sequence: GeneratingSequence) -> list[Result]:
        """Generate the next token of ``sequence``: as a chunk of one token, which can run in any slot."""
        began_at = self._clock()
        past, ids = sequence.length, np.array([sequence.last_token])
        logits = self._attempt([sequence], lambda: self._decoder.prefill(sequence.slot, ids, past))
        seconds = self._clock() - began_at
        if isinstance(logits, Exception):
            self._stats.run_failed(1, seconds)
            return [(sequence, self._serving_error(logits, sequence))]
        self._stats.step(1, seconds)
        sequence.length += 1
        return self._add_tokens([sequence], logits[np.newaxis])

    def _serving_error(self, error: Exception, sequence: GeneratingSequence) -> ServingError:
        """Return the error for the caller, and log that of the run."""
        if isinstance(error, ServingError):
            return error
        _logger.error(
            "a run of model %s failed: %r", self._name, error, extra={"request_id": sequence.request.request_id}
        )
        if failure_of(error) is RunFailure.OUT_OF_MEMORY:
            self._stats.model.out_of_memory()
            return OutOfMemoryError("the server has not enough memory to run this request")
        return InferenceFailedError()

    def _add_tokens(self, sequences: Sequence[GeneratingSequence], logits: Logits) -> list[Result]:
        """Choose the next token of each of ``sequences`` from its row of ``logits``, and append it."""
        states = [sequence.sampling for sequence in sequences]
        try:
            tokens = choose_tokens(logits, states)
            logprobs = token_logprobs(logits, tokens, states, self._detokenizer)
        except Exception:
            _logger.exception("choosing tokens of model %s failed", self._name)
            return [(sequence, InferenceFailedError()) for sequence in sequences]
        now = self._clock()
        self._count_intervals(sequences, now)
        return [
            (sequence, self._add_token(sequence, token, own_logprobs, now))
            for sequence, token, own_logprobs in zip(sequences, tokens, logprobs, strict=True)
        ]

    def _add_token(
        self, sequence: GeneratingSequence, token: int, logprobs: TokenLogprobs | None, now: float
    ) -> Delta | ServingError:
        try:
            if token != NO_TOKEN:
                return sequence.add(token, logprobs, now)
            _logger.error("model %s gives no number for any token", self._name)
        except Exception:
            _logger.exception("making text of model %s failed", self._name)
        return InferenceFailedError()

    def _count_intervals(self, sequences: Sequence[GeneratingSequence], now: float) -> None:
        """Report the times to first tokens, and those from each other token to the one before it."""
        intervals: dict[float, int] = {}
        for sequence in sequences:
            if sequence.generated:
                intervals[sequence.last_token_at] = intervals.get(sequence.last_token_at, 0) + 1
            else:
                self._stats.first_token(now - sequence.request.received_at)
        for last_at, count in intervals.items():
            self._stats.token_intervals(now - last_at, count)
