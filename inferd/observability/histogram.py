"""A histogram that can take many values at a time."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import inf, isinf

#: Upper bounds of the buckets of durations: from a tenth of a millisecond to ten seconds.
DURATION_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

#: Upper bounds of the buckets of batch sizes.
ROWS_BOUNDS = tuple(float(2**exponent) for exponent in range(11))


class Histogram:
    """Counts by bucket, and the sum. Not safe for threads: its owner has the lock, and one lock for all it counts."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count each value."""
        bounds, counts = self._bounds, self._counts
        total = 0.0
        for value in values:
            counts[bisect_left(bounds, value)] += 1
            total += value
        self._sum += total

    def add(self, other: "Histogram") -> None:
        """Count all that ``other``, which has the same bounds, has counted."""
        self._counts = [mine + theirs for mine, theirs in zip(self._counts, other._counts, strict=True)]
        self._sum += other._sum

    def copy(self) -> "Histogram":
        """Return one that has counted the same."""
        twin = Histogram(self._bounds)
        twin.add(self)
        return twin

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """Their sum."""
        return self._sum

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bucket's upper bound as Prometheus writes it, with the number of values up to that bound."""
        counted = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip((*self._bounds, inf), self._counts, strict=True):
            counted += count
            buckets.append(("+Inf" if isinf(bound) else str(bound), counted))
        return buckets
