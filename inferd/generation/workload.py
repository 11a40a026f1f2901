"""What is learned from a model's runs and requests: how long runs take, how long prompts and answers are. Pure.

Times are wall times in seconds. `inferd.generation.forecast` predicts from them when requests are complete.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from inferd.batching.cost_model import CostModel
from inferd.generation.request import GenerationRequest
from inferd.observability.metrics.run_cost import RunCost

#: Predictions are reliable from this many runs on, and for this long after the last one.
_RELIABLE_RUNS = 3
_RELIABLE_S = 10.0
#: Weight of a step in the average time of the chunks between two steps.
_BETWEEN_WEIGHT = 0.1
#: Weight of a request in the average lengths: about the last sixteen count.
_LENGTH_WEIGHT = 1 / 16
#: Fewer answers make no average, because short ones end first.
_MIN_ANSWERS = 16
#: Few answers exceed the average length by more than this many mean deviations.
_DEVIATIONS = 2.0


class RunTimes:
    """Learned times of runs: of decode steps by their sequences, of prefill chunks by their tokens."""

    def __init__(self, chunk_tokens: int) -> None:
        self._chunk_tokens = chunk_tokens
        self._steps = CostModel()
        self._chunks = CostModel()
        # The time of the chunks since the last step, and its average.
        self._since_step_s = 0.0
        self._prefill_between_steps_s = 0.0
        self._ran_at = -math.inf
        self._are_seeded = False

    def seed(self, steps: Iterable[tuple[int, float]], chunks: Iterable[tuple[int, float]]) -> None:
        """Use the times of the warm-up until there are others: sequences and seconds, tokens and seconds."""
        for sequences, seconds in steps:
            self._steps.seed(sequences, seconds)
        for tokens, seconds in chunks:
            self._chunks.seed(tokens, seconds)
        self._are_seeded = self._steps.predict(1) > 0 and self._chunks.predict(1) > 0

    def chunk_ran(self, tokens: int, seconds: float, now: float) -> None:
        """Record a prefill chunk."""
        self._chunks.ran(tokens, seconds, now=now)
        self._since_step_s += seconds
        self._ran_at = now

    def step_ran(self, sequences: int, seconds: float, now: float) -> None:
        """Record a decode step."""
        self._steps.ran(sequences, seconds, now=now)
        self._prefill_between_steps_s += (self._since_step_s - self._prefill_between_steps_s) * _BETWEEN_WEIGHT
        self._since_step_s = 0.0
        self._ran_at = now

    def are_reliable(self, now: float) -> bool:
        """Return whether there were enough runs, the last one lately; until then, whether there was a warm-up."""
        if self._steps.runs >= _RELIABLE_RUNS and self._chunks.runs >= _RELIABLE_RUNS:
            return now - self._ran_at <= _RELIABLE_S
        return self._are_seeded

    def step_s(self, sequences: int) -> float:
        """Return the time of a step with this many sequences; 0 while nothing is known."""
        return self._steps.predict(sequences)

    def step_cost(self, most: int) -> RunCost | None:
        """Return the predicted times of steps of up to ``most`` sequences; None while nothing is known."""
        return self._steps.snapshot(most)

    @property
    def prefill_between_steps_s(self) -> float:
        """The average time of the chunks between two steps."""
        return self._prefill_between_steps_s

    @property
    def max_prefill_between_steps_s(self) -> float:
        """The longest time of the chunks between two steps: that of a full chunk."""
        return self._chunks.predict(self._chunk_tokens)

    def prompt_s(self, tokens: float) -> float:
        """Return the time of all chunks of a prompt."""
        full, rest = divmod(math.ceil(tokens), self._chunk_tokens)
        return full * self._chunks.predict(self._chunk_tokens) + (self._chunks.predict(rest) if rest else 0.0)

    def chunks(self, tokens: int) -> int:
        """Return the number of chunks of a prompt."""
        return -(-tokens // self._chunk_tokens)


@dataclass(slots=True)
class _Average:
    value: float = 0.0
    mean_deviation: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        weight = max(_LENGTH_WEIGHT, 1 / self.count)
        if self.count > 1:
            self.mean_deviation += (abs(value - self.value) - self.mean_deviation) * weight
        self.value += (value - self.value) * weight


class RequestLengths:
    """Average lengths in tokens: of prompts and ``max_tokens`` of admitted requests, of answers as they end.

    Answers are averaged by the octave of ``max_tokens``: a caller that allows thousands of tokens mostly gets an answer
    that ends long before, one that allows ten gets ten. Until enough have ended, they count as long as is allowed.
    """

    def __init__(self) -> None:
        self._answers_by_octave: dict[int, _Average] = {}
        self._prompt = _Average()
        self._max_tokens = _Average()
        self._answer = _Average()

    def admitted(self, request: GenerationRequest) -> None:
        """Record an admitted request."""
        self._prompt.add(len(request.prompt))
        self._max_tokens.add(request.max_tokens)

    def ended(self, request: GenerationRequest, generated: int, *, complete: bool) -> None:
        """Record that ``request`` ended after ``generated`` tokens; not ``complete`` if its answer was cut short."""
        self._answer.add(generated)
        if complete:
            self._answers_by_octave.setdefault(request.max_tokens.bit_length(), _Average()).add(generated)

    def expected_answer_tokens(self, request: GenerationRequest, *, is_contended: bool) -> float:
        """Return how many tokens the answer to ``request`` is likely to have.

        With too few answers to tell, it is the minimum, so that the request is tried. If the request ``is_contended``,
        others could be complete in its place, so the estimate is cautious: the average of all answers if there are too
        few with such a limit, or else a value that few exceed.
        """
        stops = request.stops
        if not stops.token_ids and not stops.strings:
            return request.max_tokens
        least = min(max(1, stops.min_tokens), request.max_tokens)
        average = self._answers_by_octave.get(request.max_tokens.bit_length())
        if average is not None and average.count >= _MIN_ANSWERS:
            likely = average.value + (_DEVIATIONS * average.mean_deviation if is_contended else 0.0)
        else:
            likely = self.answer_tokens if is_contended else least
        return min(max(likely, least), request.max_tokens)

    @property
    def are_known(self) -> bool:
        """True if there has been any request."""
        return self._prompt.count > 0

    @property
    def prompt_tokens(self) -> float:
        """The average number of tokens of a prompt."""
        return self._prompt.value

    @property
    def answer_tokens(self) -> float:
        """The average number of tokens of an answer."""
        return self._answer.value if self._answer.count >= _MIN_ANSWERS else self._max_tokens.value

    @property
    def reserved_tokens(self) -> float:
        """The average number of tokens that a request reserves."""
        return self._prompt.value + self._max_tokens.value
