"""A histogram that observes many values at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf, isinf

from prometheus_client.samples import Exemplar

#: Bucket bounds of durations: from 0.1 ms to the default run time limit, with the 30 s that clients commonly wait. Each
#: objective needs a bound, as the 250 ms of the rules are.
DURATION_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

#: Bucket bounds of batch sizes.
ROWS_BOUNDS = tuple(float(2**exponent) for exponent in range(11))

#: Bound, cumulative count and exemplar, as prometheus-client expects them.
Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Histogram:
    """Counts by bucket, the sum, and the last exemplar of each bucket.

    Not thread-safe: the owner has one lock for all of its histograms.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe_all(self, values: Sequence[float]) -> None:
        """Add each value. Fastest if all belong to one bucket; faster if they are sorted, as FIFO waiting times are."""
        if not values:
            return
        bounds, counts = self._bounds, self._counts
        first, last = bisect_left(bounds, min(values)), bisect_left(bounds, max(values))
        if first == last:
            counts[first] += len(values)
        else:
            ordered = sorted(values)
            counted = 0
            for index in range(first, last):
                up_to = bisect_right(ordered, bounds[index], counted)
                counts[index] += up_to - counted
                counted = up_to
            counts[last] += len(ordered) - counted
        self._sum += sum(values)

    def observe(self, value: float, count: int = 1) -> None:
        """Add ``value`` ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self._sum += value * count

    def exemplify(self, exemplar: Exemplar) -> None:
        """Set ``exemplar``, whose value has been observed, as that of its bucket."""
        self._exemplars[bisect_left(self._bounds, exemplar.value)] = exemplar

    def copy(self) -> "Histogram":
        """Return a copy."""
        twin = Histogram(self._bounds)
        twin._counts = self._counts.copy()
        twin._sum = self._sum
        twin._exemplars = self._exemplars.copy()
        return twin

    def counts(self) -> tuple[int, ...]:
        """Return the number of values in each bucket; the last one is above all bounds."""
        return tuple(self._counts)

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """Sum of the values."""
        return self._sum

    def buckets(self) -> list[Bucket]:
        """Return upper bound, as Prometheus writes it, cumulative count and exemplar of each bucket."""
        counted = 0
        buckets: list[Bucket] = []
        for index, (bound, count) in enumerate(zip((*self._bounds, inf), self._counts, strict=True)):
            counted += count
            le = "+Inf" if isinf(bound) else str(bound)
            exemplar = self._exemplars.get(index)
            buckets.append((le, counted) if exemplar is None else (le, counted, exemplar))
        return buckets
