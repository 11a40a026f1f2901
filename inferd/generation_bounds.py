"""The bounds of what a request to a language model may ask for, for the server and its command line. A leaf."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Bounds:
    """Numbers from ``least`` to ``most``; with ``excludes_least`` only those above it."""

    least: float
    most: float = inf
    excludes_least: bool = False

    def violation(self, value: float) -> str | None:
        """Return what is expected in place of ``value``, and that it came; None if it is within the bounds."""
        if self.least <= value <= self.most and not (self.excludes_least and value == self.least):
            return None
        if self.excludes_least:
            expected = f"more than {self.least} and at most {self.most}"
        elif self.most == inf:
            expected = f"{self.least} or more"
        else:
            expected = f"{self.least} to {self.most}"
        return f"expected {expected}, got {value:g}"


#: By parameter. The context of a model limits ``max_tokens`` as well, and this ``min_tokens``.
NUMBERS: Mapping[str, Bounds] = {
    "max_tokens": Bounds(1),
    "min_tokens": Bounds(0),
    "temperature": Bounds(0, 2),
    # 0: all tokens.
    "top_k": Bounds(0),
    "top_p": Bounds(0, 1, excludes_least=True),
    "min_p": Bounds(0, 1),
    "repetition_penalty": Bounds(0, 1_000_000, excludes_least=True),
    "frequency_penalty": Bounds(-2, 2),
    "presence_penalty": Bounds(-2, 2),
    "logprobs": Bounds(0, 20),
}

MAX_STOP_STRINGS = 16
MAX_STOP_STRING_BYTES = 1024


def stop_violation(texts: Collection[str]) -> str | None:
    """Return what is expected in place of stop ``texts``, and what came; None if they are within the bounds."""
    if len(texts) > MAX_STOP_STRINGS:
        return f"expected at most {MAX_STOP_STRINGS}, got {len(texts)}"
    sizes = (len(text.encode(errors="replace")) for text in texts)
    wrong = next((size for size in sizes if not 1 <= size <= MAX_STOP_STRING_BYTES), None)
    return None if wrong is None else f"expected texts of 1 to {MAX_STOP_STRING_BYTES} bytes, got {wrong}"
