"""A histogram that can take many values at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import inf, isinf

from prometheus_client.samples import Exemplar

#: Upper bounds of the buckets of durations: from a tenth of a millisecond to the minute that a run may take by default,
#: with the 30 s that clients commonly wait. Objectives need a bound of their own, as the rules' 250 ms is one.
DURATION_BOUNDS_S = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

#: Upper bounds of the buckets of batch sizes.
ROWS_BOUNDS = tuple(float(2**exponent) for exponent in range(11))

#: As prometheus-client takes them.
Bucket = tuple[str, float] | tuple[str, float, Exemplar]


class Histogram:
    """Counts by bucket, and the sum; and of each bucket the last value that was given as an example.

    Not safe for threads: its owner has the lock, and one lock for all it counts.
    """

    __slots__ = ("_bounds", "_counts", "_exemplars", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each value. Values of one bucket, as those of one moment mostly are, cost least.

        Of others, those that come in an order, as waiting times do where the first come is the first served, cost less
        than those that come in none.
        """
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

    def exemplify(self, exemplar: Exemplar) -> None:
        """Keep ``exemplar``, whose value has been observed, as the example of its bucket."""
        self._exemplars[bisect_left(self._bounds, exemplar.value)] = exemplar

    def copy(self) -> "Histogram":
        """Return one that has counted the same."""
        twin = Histogram(self._bounds)
        twin._counts = self._counts.copy()
        twin._sum = self._sum
        twin._exemplars = self._exemplars.copy()
        return twin

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """Their sum."""
        return self._sum

    def buckets(self) -> list[Bucket]:
        """Return each bucket: its upper bound as Prometheus writes it, the number of values up to it, its example."""
        counted = 0
        buckets: list[Bucket] = []
        for index, (bound, count) in enumerate(zip((*self._bounds, inf), self._counts, strict=True)):
            counted += count
            le = "+Inf" if isinf(bound) else str(bound)
            exemplar = self._exemplars.get(index)
            buckets.append((le, counted) if exemplar is None else (le, counted, exemplar))
        return buckets
