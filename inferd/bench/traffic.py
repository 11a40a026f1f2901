"""Which requests are sent: classes of traffic, and the requests that were prepared for each."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficClass:
    """Requests that are alike. ``weight`` is their share of all requests, relative to the other classes'.

    ``principal`` names one of the tokens; empty for the default one. ``priority`` 0 leaves it to the server.
    """

    name: str
    model: str
    version: str = ""
    weight: float = 1.0
    rows: int = 1
    priority: int = 0
    principal: str = ""
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A serialized request of the traffic class with that index. ``expected`` is the answer to it alone, if checked."""

    class_index: int
    rows: int
    message: bytes
    timeout_s: float
    expected: Arrays | None = None


@dataclass(slots=True)
class _Samples:
    requests: Sequence[Prepared]
    next: int = 0


@dataclass(slots=True)
class Deck:
    """Draws requests: the class at random by weight, and the samples of a class in turn.

    ``prepared`` has the samples by class index and rows.
    """

    classes: Sequence[TrafficClass]
    prepared: Mapping[tuple[int, int], Sequence[Prepared]]
    random: np.random.Generator
    _bounds: list[float] = field(init=False)
    _samples: dict[tuple[int, int], _Samples] = field(init=False)

    def __post_init__(self) -> None:
        self._bounds = list(accumulate(each.weight for each in self.classes))
        self._samples = {key: _Samples(requests) for key, requests in self.prepared.items()}

    def draw(self, rows: int | None = None) -> Prepared:
        """Return the next request, of ``rows`` rows or as many as its class has."""
        index = self._draw_class() if len(self._bounds) > 1 else 0
        samples = self._samples[index, self.classes[index].rows if rows is None else rows]
        drawn = samples.requests[samples.next]
        samples.next = (samples.next + 1) % len(samples.requests)
        return drawn

    def _draw_class(self) -> int:
        return bisect_right(self._bounds, self.random.random() * self._bounds[-1])
