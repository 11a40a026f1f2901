"""Learns how long prompts and answers are. Pure."""

from dataclasses import dataclass

from inferd.generation.request import GenerationRequest

#: The weight of one request in the averages: about the last sixteen count.
_WEIGHT = 1 / 16
#: An average of fewer answers says little: those that end first are short.
_ENOUGH = 16
#: Few answers are longer than the average by more than this many times what they differ from it on average.
_SPREADS = 2.0


@dataclass(slots=True)
class _Average:
    value: float = 0.0
    #: How far values are from the average, on average.
    spread: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        weight = max(_WEIGHT, 1 / self.count)
        self.spread += (abs(value - self.value) - self.spread) * weight if self.count > 1 else 0.0
        self.value += (value - self.value) * weight


class Lengths:
    """Average lengths of the requests to a model: of prompts as they are admitted, of answers as they end.

    Answers are averaged by the octave of ``max_tokens``: callers that allow thousands of tokens mostly get answers that
    end long before, those that allow ten get ten. Before some have ended, they are taken to be as long as is allowed.
    """

    def __init__(self) -> None:
        self._generated: dict[int, _Average] = {}
        self._prompt = _Average()
        self._allowed = _Average()
        self._answer = _Average()

    def admitted(self, request: GenerationRequest) -> None:
        """Record that ``request`` waits."""
        self._prompt.add(len(request.prompt))
        self._allowed.add(request.max_tokens)

    def ended(self, request: GenerationRequest, generated: int, *, complete: bool) -> None:
        """Record that ``request`` ended after ``generated`` tokens; not ``complete`` if it would have gone on."""
        self._answer.add(generated)
        if complete:
            self._generated.setdefault(request.max_tokens.bit_length(), _Average()).add(generated)

    def expected(self, request: GenerationRequest, *, is_contended: bool) -> float:
        """Return how many tokens the answer is likely to have.

        While that is unknown, as few as it can have, so that it is tried. If it ``is_contended``, others are likely to
        be complete in its place: then as many as others have while it is unknown, and more the more answers differ.
        """
        stops = request.stops
        if not stops.token_ids and not stops.texts:
            return request.max_tokens
        least = min(max(1, stops.min_tokens), request.max_tokens)
        average = self._generated.get(request.max_tokens.bit_length())
        if average is not None and average.count >= _ENOUGH:
            likely = average.value + (_SPREADS * average.spread if is_contended else 0.0)
        else:
            likely = self.answer_tokens if is_contended else least
        return min(max(likely, least), request.max_tokens)

    @property
    def are_known(self) -> bool:
        """Whether there has been any request."""
        return self._prompt.count > 0

    @property
    def prompt_tokens(self) -> float:
        """The tokens of a prompt."""
        return self._prompt.value

    @property
    def answer_tokens(self) -> float:
        """The tokens of an answer."""
        return self._answer.value if self._answer.count >= _ENOUGH else self._allowed.value

    @property
    def reserved_tokens(self) -> float:
        """The tokens that a request reserves."""
        return self._prompt.value + self._allowed.value
