"""Predicts when a request is complete: for early rejections, the limit of the waiting queue, and retry hints. Pure.

**Rate.** While requests wait, all slots or all tokens of the cache are taken, so each request costs the chunks of its
prompt and its share of the steps. The learned run times and the average lengths give the rate at which tokens, counted
as they are reserved, leave the waiting queue.

**Deadlines.** A request is rejected on arrival if it would not be complete in time, by its place in the queue, its
prompt and the expected length of its answer. The prediction is multiplied by the 99th percentile of actual over
predicted times, learned from the requests that have ended.

**Retries.** As for ordinary models, a hint is a random time between half of what the waiting tokens take and all of it.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from inferd.generation.finish_reasons import DEADLINE
from inferd.generation.request import FinishReason, GenerationRequest
from inferd.generation.workload import RequestLengths, RunTimes

_MIN_RETRY_S = 0.01
_MAX_RETRY_S = 30.0
#: The retry delay while no rate is known.
_DEFAULT_RETRY_S = 1.0
#: The percentile of actual over predicted times, its change per request, and its start.
_PERCENTILE = 0.99
_FACTOR_STEP = 0.05
_START_FACTOR = 1.5
#: The minimum leaves time for a stall of the machine, which would delay all requests that are predicted to be just in
#: time.
_MIN_FACTOR, _MAX_FACTOR = 1.15, 4.0
_COMPLETE = frozenset(reason.value for reason in FinishReason)


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheLoad:
    """What the KV cache holds: sequences, free slots, unreserved tokens, and prompt tokens that have yet to run."""

    sequences: int
    free_slots: int
    free_tokens: int
    prompt_tokens: int = 0


class GenerationForecast:
    """Predicts completion times and the rate of the queue; guarded by the intake's lock.

    Tokens of requests are those that they reserve. ``jitter`` returns a random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        slots: int,
        total_tokens: int,
        chunk_tokens: int,
        max_delay_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._slots = slots
        self._total_tokens = total_tokens
        self._max_delay_s = max_delay_s
        self._jitter = jitter
        self.times = RunTimes(chunk_tokens)
        self.lengths = RequestLengths()
        #: The 99th percentile of actual over predicted times.
        self.error_factor = _START_FACTOR

    @property
    def tokens_per_s(self) -> float:
        """Reserved tokens that leave the queue per second while the cache is full; 0 while it is unknown."""
        lengths = self.lengths
        if not lengths.are_known:
            return 0.0
        together = max(1, min(self._slots, int(self._total_tokens / lengths.reserved_tokens)))
        request_s = self.times.prompt_s(lengths.prompt_tokens)
        request_s += lengths.answer_tokens * self.times.step_s(together) / together
        return lengths.reserved_tokens / request_s if request_s > 0 else 0.0

    def row_limit(self, most: int, load: CacheLoad) -> int:
        """Return how many waiting tokens, ``most`` at most, are likely to start within the delay limit."""
        rate = self.tokens_per_s
        if not rate or not self._max_delay_s:
            return most
        return min(most, int(self._startable_tokens(load) + rate * self._max_delay_s))

    def started_alone(self, rows: int) -> int:
        """Return how many requests of ``rows`` tokens an empty cache takes."""
        return min(self._slots, self._total_tokens // rows)

    def row_limit_alone(self, most: int, started: int, rows: int) -> int:
        """Return the `row_limit` while nothing runs but ``started`` requests of ``rows`` tokens."""
        return self.row_limit(most, self._load_alone(started, rows))

    def _load_alone(self, started: int, rows: int) -> CacheLoad:
        free_tokens = self._total_tokens - started * rows
        return CacheLoad(sequences=started, free_slots=self._slots - started, free_tokens=free_tokens)

    def predict_completion_s(self, request: GenerationRequest, ahead: int, load: CacheLoad) -> float:
        """Return the time until ``request`` is complete with ``ahead`` tokens before it in the queue; 0 if unknown."""
        is_contended = ahead > 0
        waiting = math.ceil(ahead / self.lengths.reserved_tokens) if is_contended else 0
        sequences = min(self._slots, load.sequences + waiting + 1)
        wait_s = self._queue_s(request, ahead, load)
        return wait_s + self._service_s(request, sequences, is_contended=is_contended)

    def _service_s(self, request: GenerationRequest, sequences: int, *, is_contended: bool) -> float:
        """Return the time from the start of ``request`` to its end while ``sequences`` run, itself included.

        The first token comes with the last chunk of its prompt. If others run, a step follows each chunk.
        """
        times, prompt_tokens = self.times, len(request.prompt)
        steps_s = times.chunks(prompt_tokens) * times.step_s(sequences - 1) if sequences > 1 else 0.0
        between_s = times.prefill_between_steps_s
        if is_contended:
            between_s = max(between_s, self._contended_prefill_s(sequences))
        intervals = max(0.0, self.lengths.expected_answer_tokens(request, is_contended=is_contended) - 1)
        return times.prompt_s(prompt_tokens) + steps_s + intervals * (times.step_s(sequences) + between_s)

    def _contended_prefill_s(self, sequences: int) -> float:
        """Return the time of the chunks between two steps while each free slot is taken again immediately."""
        times, lengths = self.times, self.lengths
        prompts_s = sequences * times.prompt_s(lengths.prompt_tokens)
        return min(times.max_prefill_between_steps_s, prompts_s / max(1.0, lengths.answer_tokens))

    def would_miss_deadline(self, request: GenerationRequest, ahead: int, load: CacheLoad, now: float) -> bool:
        """Return whether ``request`` would miss its deadline; set its ``expected_s``, which `learn` compares."""
        if request.deadline == math.inf:
            return False
        request.expected_s = self.predict_completion_s(request, ahead, load)
        return self.times.are_reliable(now) and now + request.expected_s * self.error_factor > request.deadline

    def is_too_long(self, request: GenerationRequest, now: float) -> bool:
        """Return whether ``request`` would miss its deadline even alone, without any margin.

        Of several choices, the last one would.
        """
        wait_s = self._queue_s(request, (request.choices - 1) * request.rows, self._load_alone(0, request.rows))
        steps = max(0.0, self.lengths.expected_answer_tokens(request, is_contended=False) - 1)
        return now + wait_s + self.times.prompt_s(len(request.prompt)) + steps * self.times.step_s(1) > request.deadline

    def retry_in_time_s(self, request: GenerationRequest, waiting_tokens: int, now: float) -> float:
        """Return after how long a retry of ``request``, which `would_miss_deadline`, is likely to be in time.

        The work before it in the queue shrinks by a second in each second.
        """
        late_s = request.expected_s - (request.deadline - now) / self.error_factor
        return min(max(late_s * (1.0 + self._jitter() / 2), self.retry_after_s(waiting_tokens)), _MAX_RETRY_S)

    def learn(self, request: GenerationRequest, generated: int, reason: str, now: float) -> None:
        """Learn lengths and the error of the prediction from ``request``; ``reason`` is one of the `FINISH_REASONS`."""
        is_complete = reason in _COMPLETE
        self.lengths.ended(request, generated, complete=is_complete)
        if request.expected_s > 0 and (is_complete or reason == DEADLINE):
            is_late = now - request.enqueued_at > request.expected_s * self.error_factor
            # Steps up are 99 times as large as steps down, so the factor settles where one request in 100 is late.
            self.error_factor *= 1.0 + _FACTOR_STEP * (_PERCENTILE if is_late else _PERCENTILE - 1.0)
            self.error_factor = min(max(self.error_factor, _MIN_FACTOR), _MAX_FACTOR)

    def retry_after_s(self, waiting_tokens: int, /) -> float:
        """Return after how long a retry is likely to be admitted."""
        rate = self.tokens_per_s
        if not rate:
            return _DEFAULT_RETRY_S
        drained_s = waiting_tokens / rate
        limit_s = self._max_delay_s or math.inf
        seconds = min(drained_s, limit_s) * (1.0 - self._jitter() / 2)
        # More may wait while the cache fills than later, so the queue may have to shrink first.
        return min(max(seconds, drained_s - limit_s, _MIN_RETRY_S), _MAX_RETRY_S)

    def _startable_tokens(self, load: CacheLoad) -> float:
        """Return how many tokens of waiting requests can start immediately."""
        return min(load.free_tokens, load.free_slots * self.lengths.reserved_tokens)

    def _queue_s(self, request: GenerationRequest, ahead: int, load: CacheLoad) -> float:
        """Return the time until ``request`` has a slot and its tokens, and the prompts before it have run."""
        lengths, rate = self.lengths, self.tokens_per_s
        prompts = load.prompt_tokens
        if not rate:
            return self.times.prompt_s(prompts)
        prompts_s = self.times.prompt_s(prompts + ahead * lengths.prompt_tokens / lengths.reserved_tokens)
        if load.free_slots and not ahead and request.rows <= load.free_tokens:
            return prompts_s
        return max(prompts_s, (ahead + request.rows - self._startable_tokens(load)) / rate)
