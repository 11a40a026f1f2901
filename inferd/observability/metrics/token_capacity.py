"""How many tokens of requests a language model can take per second, for autoscaling."""

#: Share of the newest value in an average.
_SHARE = 0.05


class _Average:
    """An average of recent values; None before the first."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float | None = None

    def add(self, value: float) -> None:
        self.value = value if self.value is None else self.value + _SHARE * (value - self.value)


class TokenCapacity:
    """Derives the capacity from what prefill, steps and requests took so far.

    A request is offered with the tokens that the cache reserves for it, but what it takes is the prefill of its prompt,
    and the steps of what it generates. Steps get cheaper per token as they have more sequences, so the cheapest size
    counts, as for the rows of ordinary models; sizes that were not seen recently keep their averages.

    Threads: `prefilled` and `stepped` the engine's; `finished` one at a time; ``tokens_per_s`` any.
    """

    def __init__(self) -> None:
        self._prefill_s = _Average()
        # By the power of two of the number of sequences.
        self._step_s: dict[int, _Average] = {}
        self._prompt, self._generated, self._reserved = _Average(), _Average(), _Average()

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Take note of a run over a part of a prompt."""
        self._prefill_s.add(seconds / tokens)

    def stepped(self, rows: int, seconds: float) -> None:
        """Take note of a step of ``rows`` sequences."""
        size = rows.bit_length()
        average = self._step_s.get(size)
        if average is None:
            average = self._step_s[size] = _Average()
        average.add(seconds / rows)

    def finished(self, prompt_tokens: int, generated_tokens: int, max_tokens: int) -> None:
        """Take note of what a request took of what was reserved for it."""
        self._prompt.add(prompt_tokens)
        self._generated.add(generated_tokens)
        self._reserved.add(prompt_tokens + max_tokens)

    @property
    def tokens_per_s(self) -> float:
        """Reserved tokens per second of an engine that is always busy with full steps; 0 before the first request."""
        prompt, generated, reserved = self._prompt.value, self._generated.value, self._reserved.value
        if prompt is None or generated is None or reserved is None:
            return 0.0
        steps_s = [average.value for average in list(self._step_s.values()) if average.value is not None]
        busy_s = prompt * (self._prefill_s.value or 0.0) + max(generated - 1, 0.0) * min(steps_s, default=0.0)
        return reserved / busy_s if busy_s else 0.0
