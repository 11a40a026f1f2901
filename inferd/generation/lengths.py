"""Learns how long answers are, and prompts, from those that ended. Pure."""

from dataclasses import dataclass

from inferd.generation.request import GenerationRequest

#: The weight of one request in the averages: about the last sixteen count.
_WEIGHT = 1 / 16
#: An average of fewer answers says nothing.
_ENOUGH = 3


@dataclass(slots=True)
class _Average:
    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) * max(_WEIGHT, 1 / self.count)


class Lengths:
    """Average lengths of the requests to a model.

    Answers are averaged by the octave of ``max_tokens``: callers that allow thousands of tokens mostly get answers that
    end long before, those that allow ten get ten.
    """

    def __init__(self) -> None:
        self._generated: dict[int, _Average] = {}
        self._prompt = _Average()
        self._answer = _Average()
        self._reserved = _Average()

    def ended(self, request: GenerationRequest, generated: int, *, complete: bool) -> None:
        """Record that ``request`` ended after ``generated`` tokens; not ``complete`` if it would have gone on."""
        self._prompt.add(len(request.prompt))
        self._answer.add(generated)
        self._reserved.add(request.rows)
        if complete:
            self._generated.setdefault(request.max_tokens.bit_length(), _Average()).add(generated)

    def expected(self, request: GenerationRequest) -> float:
        """Return how many tokens the answer is likely to have; as few as it can have while that is unknown."""
        stops = request.stops
        if not stops.token_ids and not stops.texts:
            return request.max_tokens
        least = max(1, min(stops.min_tokens, request.max_tokens))
        average = self._generated.get(request.max_tokens.bit_length())
        if average is None or average.count < _ENOUGH:
            return least
        return min(max(average.value, least), request.max_tokens)

    @property
    def are_known(self) -> bool:
        """Whether anything has ended yet."""
        return self._prompt.count > 0

    @property
    def prompt_tokens(self) -> float:
        """The tokens of a prompt."""
        return self._prompt.value

    @property
    def answer_tokens(self) -> float:
        """The tokens of an answer."""
        return self._answer.value

    @property
    def reserved_tokens(self) -> float:
        """The tokens that a request reserves."""
        return self._reserved.value
