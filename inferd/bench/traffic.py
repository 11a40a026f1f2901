"""Choose the requests to send: traffic classes, and the prepared requests of each."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficClass:
    """A class of requests. ``weight`` is its share of all requests, relative to other classes.

    ``principal`` is the name of a token; empty for the default. ``priority`` 0 is the server's default.
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
    """A serialized request of a traffic class. ``expected`` is its answer when run alone; None without a check."""

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
class RequestSampler:
    """Chooses requests: the class at random by weight, and the samples of a class in turn.

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
        """Return the next request, with ``rows`` rows, or those of its class if None."""
        index = self._draw_class() if len(self._bounds) > 1 else 0
        samples = self._samples[index, self.classes[index].rows if rows is None else rows]
        drawn = samples.requests[samples.next]
        samples.next = (samples.next + 1) % len(samples.requests)
        return drawn

    def _draw_class(self) -> int:
        return bisect_right(self._bounds, self.random.random() * self._bounds[-1])
