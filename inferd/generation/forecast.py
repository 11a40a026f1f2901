"""Predicts when a request is complete, and what follows: early refusals, how many may wait, and retry hints. Pure.

**Rate.** While requests wait, all places in the cache are taken, so each request costs its prompt's chunks and its
share of the steps. From the learned times of chunks and steps and the average lengths follow the tokens, counted as
they are reserved, that leave the waiting line in a second.

**Deadlines.** A request that is not complete in time, by its place in the line, its prompt and the expected length of
its answer, is refused on arrival. The prediction is multiplied by the 99th percentile of "actual over predicted",
learned from the requests that have ended.

**Retries.** As for ordinary models: a random time between half of what the waiting tokens take and all of it.
"""

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inferd.batching.cost_model import CostModel
from inferd.generation.endings import DEADLINE
from inferd.generation.lengths import Lengths
from inferd.generation.request import FinishReason, GenerationRequest
from inferd.observability.metrics.run_cost import RunCost

_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: The retry delay while no rate is known.
_UNKNOWN_HINT_S = 1.0
#: What is predicted is no reason to refuse a request when no run has confirmed it for this long.
_SURE_S = 10.0
_SURE_RUNS = 3
#: Weight of a step in the average time of the chunks between two steps.
_BETWEEN_WEIGHT = 0.1
#: The percentile of actual over predicted times, its step per request, its start and its bounds.
_PERCENTILE = 0.99
_STEP = 0.05
_START_FACTOR = 1.5
#: The least leaves time for a stall of the machine, which makes all late that were predicted to be just in time.
_FACTORS = 1.15, 4.0
_COMPLETE = frozenset(reason.value for reason in FinishReason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What is in the cache: sequences, free slots, free tokens, and tokens of prompts that have yet to run."""

    sequences: int
    free_slots: int
    free_tokens: int
    prompt_tokens: int = 0


class RunTimes:
    """What runs take, learned from those that ended: steps by sequences, chunks by tokens; wall time in seconds."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._steps = CostModel()
        self._chunks = CostModel()
        # The chunks since the last step, and the average of that.
        self._since_step_s = 0.0
        self._between_s = 0.0
        self._ran_at = -math.inf
        self._are_seeded = False

    def seed(self, steps: Iterable[tuple[int, float]], chunks: Iterable[tuple[int, float]]) -> None:
        """Take what runs took before the model was ready, until real ones are known."""
        for sequences, seconds in steps:
            self._steps.seed(sequences, seconds)
        for tokens, seconds in chunks:
            self._chunks.seed(tokens, seconds)
        self._are_seeded = self._steps.predict(1) > 0 and self._chunks.predict(1) > 0

    def chunk_ran(self, tokens: int, seconds: float, now: float) -> None:
        """Record a chunk."""
        self._chunks.ran(tokens, seconds, now=now)
        self._since_step_s += seconds
        self._ran_at = now

    def step_ran(self, sequences: int, seconds: float, now: float) -> None:
        """Record a step."""
        self._steps.ran(sequences, seconds, now=now)
        self._between_s += (self._since_step_s - self._between_s) * _BETWEEN_WEIGHT
        self._since_step_s = 0.0
        self._ran_at = now

    def are_sure(self, now: float) -> bool:
        """Whether enough runs have been seen, and not long ago; those before the model was ready count at first."""
        if self._steps.runs >= _SURE_RUNS and self._chunks.runs >= _SURE_RUNS:
            return now - self._ran_at <= _SURE_S
        return self._are_seeded

    def step_s(self, sequences: int) -> float:
        """Return the time of a step of this many sequences; 0 while nothing is known."""
        return self._steps.predict(sequences)

    def step_cost(self, most: int) -> RunCost | None:
        """Return what steps of up to ``most`` sequences are predicted to take; None while nothing is known."""
        return self._steps.snapshot(most)

    @property
    def between_s(self) -> float:
        """The time of the chunks between two steps, as lately."""
        return self._between_s

    @property
    def longest_between_s(self) -> float:
        """The time of the chunks between two steps, at most."""
        return self._chunks.predict(self._chunk_tokens)

    def prompt_s(self, tokens: float) -> float:
        """Return the time of the chunks of ``tokens``."""
        full, rest = divmod(math.ceil(tokens), self._chunk_tokens)
        return full * self._chunks.predict(self._chunk_tokens) + (self._chunks.predict(rest) if rest else 0.0)

    def chunks(self, tokens: int) -> int:
        """Return the number of chunks of a prompt of ``tokens``."""
        return -(-tokens // self._chunk_tokens)


class GenerationForecast:
    """When requests are complete. ``rows`` are tokens, prompt and ``max_tokens``; guarded by the engine's lock."""

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
        self.lengths = Lengths()
        #: The 99th percentile of actual over predicted times.
        self.factor = _START_FACTOR

    @property
    def tokens_per_s(self) -> float:
        """Reserved tokens that leave the line in a second while the cache is full; 0 while that is unknown."""
        lengths = self.lengths
        if not lengths.are_known:
            return 0.0
        together = max(1, min(self._slots, int(self._total_tokens / lengths.reserved_tokens)))
        request_s = self.times.prompt_s(lengths.prompt_tokens)
        request_s += lengths.answer_tokens * self.times.step_s(together) / together
        return lengths.reserved_tokens / request_s if request_s > 0 else 0.0

    def row_limit(self, most: int, load: Load) -> int:
        """Return how many tokens, ``most`` at most, are likely to start within the delay limit."""
        rate = self.tokens_per_s
        if not rate or not self._max_delay_s:
            return most
        return min(most, int(self._startable(load) + rate * self._max_delay_s))

    def complete_s(self, request: GenerationRequest, ahead: int, load: Load) -> float:
        """Predict the time until ``request`` is complete, with ``ahead`` tokens in front of it; 0 if it is unknown."""
        is_contended = ahead > 0
        waiting = math.ceil(ahead / self.lengths.reserved_tokens) if is_contended else 0
        sequences = min(self._slots, load.sequences + waiting + 1)
        wait_s = self._wait_s(request, ahead, load)
        return wait_s + self._own_s(request, sequences, is_contended=is_contended)

    def _own_s(self, request: GenerationRequest, sequences: int, *, is_contended: bool) -> float:
        """Predict the time from the start of ``request`` to its end, beside others if ``sequences`` are more than one.

        The first token comes with the last chunk; a step follows each chunk if others run.
        """
        times, prompt_tokens = self.times, len(request.prompt)
        steps_s = times.chunks(prompt_tokens) * times.step_s(sequences - 1) if sequences > 1 else 0.0
        between_s = max(times.between_s, self._between_s(sequences)) if is_contended else times.between_s
        intervals = max(0.0, self.lengths.expected(request, is_contended=is_contended) - 1)
        return times.prompt_s(prompt_tokens) + steps_s + intervals * (times.step_s(sequences) + between_s)

    def _between_s(self, sequences: int) -> float:
        """Return the time of the chunks between two steps while each place is taken again as soon as it is free."""
        times, lengths = self.times, self.lengths
        prompts_s = sequences * times.prompt_s(lengths.prompt_tokens)
        return min(times.longest_between_s, prompts_s / max(1.0, lengths.answer_tokens))

    def comes_too_late(self, request: GenerationRequest, ahead: int, load: Load, now: float) -> bool:
        """Whether ``request`` would miss its deadline; remember what is predicted, to learn from it."""
        if request.deadline == math.inf:
            return False
        request.expected_s = self.complete_s(request, ahead, load)
        return self.times.are_sure(now) and now + request.expected_s * self.factor > request.deadline

    def retry_in_time_s(self, request: GenerationRequest, waiting_tokens: int, now: float) -> float:
        """Return after which time a retry of ``request``, which `comes_too_late`, is likely to be in time.

        What is in front of it is less by a second in each second.
        """
        late_s = request.expected_s - (request.deadline - now) / self.factor
        return min(max(late_s * (1.0 + self._jitter() / 2), self.retry_after_s(waiting_tokens)), _LONGEST_HINT_S)

    def ended(self, request: GenerationRequest, generated: int, reason: str, now: float) -> None:
        """Learn from ``request``, which ended for one of the `FINISH_REASONS`, how far off the prediction was."""
        is_complete = reason in _COMPLETE
        self.lengths.ended(request, generated, complete=is_complete)
        if request.expected_s > 0 and (is_complete or reason == DEADLINE):
            is_late = now - request.enqueued_at > request.expected_s * self.factor
            # A step up is as much larger than a step down as late requests are rarer.
            self.factor *= 1.0 + _STEP * (_PERCENTILE if is_late else _PERCENTILE - 1.0)
            self.factor = min(max(self.factor, _FACTORS[0]), _FACTORS[1])

    def retry_after_s(self, waiting_tokens: int, /) -> float:
        """Return after which time a retry is likely to be admitted."""
        rate = self.tokens_per_s
        if not rate:
            return _UNKNOWN_HINT_S
        drained_s = waiting_tokens / rate
        limit_s = self._max_delay_s or math.inf
        seconds = min(drained_s, limit_s) * (1.0 - self._jitter() / 2)
        # While the cache fills, more may wait than later.
        return min(max(seconds, drained_s - limit_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)

    def _startable(self, load: Load) -> float:
        """Return how many tokens of waiting requests can start at once."""
        return min(load.free_tokens, load.free_slots * self.lengths.reserved_tokens)

    def _wait_s(self, request: GenerationRequest, ahead: int, load: Load) -> float:
        """Return when ``request`` starts: when it has a place, and the prompts in front of it have run."""
        lengths, rate = self.lengths, self.tokens_per_s
        prompts = load.prompt_tokens
        if not rate:
            return self.times.prompt_s(prompts)
        prompts_s = self.times.prompt_s(prompts + ahead * lengths.prompt_tokens / lengths.reserved_tokens)
        if load.free_slots and not ahead and request.rows <= load.free_tokens:
            return prompts_s
        return max(prompts_s, (ahead + request.rows - self._startable(load)) / rate)
