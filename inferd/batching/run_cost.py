"""What a run costs whatever its size, and so what it saves to run two batches as one. Pure."""

#: What one run weighs in the average of those of about its size.
_WEIGHT = 1 / 8
#: Runs after which the cost is worked out anew.
_RUNS_PER_FIT = 16


class RunCost:
    """Learns the duration of a run as a fixed part and a part for each row, from the runs as they are.

    Runs are averaged by size, in steps of powers of two, so that sizes that were rare lately keep their say. Not
    thread-safe: guarded by the lock of the `RequestQueue` that it is a part of.
    """

    def __init__(self) -> None:
        self._averages: dict[int, tuple[float, float]] = {}
        self._runs = 0
        #: The fixed part in seconds; None while all runs were of about one size.
        self.fixed_s: float | None = None

    def ran(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` took ``seconds``."""
        size = rows.bit_length()
        known_rows, known_s = self._averages.get(size, (float(rows), seconds))
        self._averages[size] = (
            known_rows + (rows - known_rows) * _WEIGHT,
            known_s + (seconds - known_s) * _WEIGHT,
        )
        if self._runs % _RUNS_PER_FIT == 0:
            self.fixed_s = self._fit()
        self._runs += 1

    def _fit(self) -> float | None:
        """Return where the straight line through the averages begins, not below nothing."""
        if len(self._averages) < 2:
            return None
        points = list(self._averages.values())
        mean_rows = sum(rows for rows, _ in points) / len(points)
        mean_s = sum(seconds for _, seconds in points) / len(points)
        spread = sum((rows - mean_rows) ** 2 for rows, _ in points)
        slope = sum((rows - mean_rows) * (seconds - mean_s) for rows, seconds in points) / spread
        return max(mean_s - slope * mean_rows, 0.0)
