"""Record latencies in an HdrHistogram, from 1 µs to 1 hour."""

from collections.abc import Sequence
from typing import Self

from hdrh.histogram import HdrHistogram

_LOWEST_US = 1
_HIGHEST_US = 3_600_000_000

#: The percentiles in reports.
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)

#: The points of a report's latency curve: evenly spaced on an axis of "nines".
CURVE = (
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 93.0, 95.0, 97.0, 98.0, 99.0, 99.3, 99.5, 99.7, 99.8,
    99.9, 99.95, 99.97, 99.99, 99.995, 99.999,
)  # fmt: skip


class Histogram:
    """Counts durations by value, with ``digits`` significant digits. Picklable and mergeable."""

    __slots__ = ("_counts", "_digits", "_sum_us")

    def __init__(self, digits: int = 3) -> None:
        self._digits = digits
        self._counts = HdrHistogram(_LOWEST_US, _HIGHEST_US, digits)
        self._sum_us = 0

    def record(self, seconds: float) -> None:
        """Count a duration, clamped to the range."""
        microseconds = min(max(round(seconds * 1e6), _LOWEST_US), _HIGHEST_US)
        self._counts.record_value(microseconds)
        self._sum_us += microseconds

    def add(self, other: Self) -> None:
        """Count everything that ``other`` has counted."""
        if other.count:
            self._counts.add(other._counts)
            self._sum_us += other._sum_us

    @property
    def count(self) -> int:
        """The number of durations recorded."""
        return int(self._counts.get_total_count())

    def mean_ms(self) -> float | None:
        """Return the mean, or None without durations."""
        return self._sum_us / self.count / 1000 if self.count else None

    def max_ms(self) -> float | None:
        """Return the longest, or None without durations."""
        return float(self._counts.get_max_value()) / 1000 if self.count else None

    def percentiles_ms(self, percentiles: Sequence[float] = PERCENTILES) -> dict[float, float]:
        """Return the value of each percentile, in one pass; empty without durations."""
        if not self.count:
            return {}
        found: dict[float, int] = self._counts.get_percentile_to_value_dict(list(percentiles))
        return {percentile: found[percentile] / 1000 for percentile in percentiles}

    def encoded(self) -> str:
        """Return the counts in HdrHistogram's own compressed format, in base64."""
        text: bytes = self._counts.encode()
        return text.decode()

    def __getstate__(self) -> tuple[int, int, str | None]:
        return self._digits, self._sum_us, self.encoded() if self.count else None

    def __setstate__(self, state: tuple[int, int, str | None]) -> None:
        self._digits, self._sum_us, encoded = state
        self._counts = HdrHistogram(_LOWEST_US, _HIGHEST_US, self._digits)
        if encoded is not None:
            self._counts.decode_and_add(encoded)
