"""How long runs take: what two of them cost more than one of both, and whether they are short. Pure."""

#: What one run weighs in the average of those of about its size.
_WEIGHT = 1 / 8
#: Runs after which the cost is worked out anew.
_RUNS_PER_FIT = 16
#: A run is short if it takes less than it takes to wake another thread for it, which then fetches Python's interpreter
#: lock from another core.
_SHORT_S = 0.0003
#: After one that took this long, none counts as short for so many runs: some models take as long as their inputs say.
_FAR_FROM_SHORT_S = 0.01
_RUNS_UNTIL_TRUSTED = 10_000


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
        #: Whether runs are short, whatever their size.
        self.is_short = False
        self._distrusted_until = 0

    def ran(self, rows: int, seconds: float) -> None:
        """A batch of ``rows`` took ``seconds``."""
        size = rows.bit_length()
        known_rows, known_s = self._averages.get(size, (float(rows), seconds))
        self._averages[size] = (
            known_rows + (rows - known_rows) * _WEIGHT,
            known_s + (seconds - known_s) * _WEIGHT,
        )
        self._runs += 1
        if seconds >= _FAR_FROM_SHORT_S:
            self._distrusted_until = self._runs + _RUNS_UNTIL_TRUSTED
            self.is_short = False
        if self._runs % _RUNS_PER_FIT == 0:
            self.fixed_s = self._fit()
            slowest_s = max(average_s for _, average_s in self._averages.values())
            self.is_short = slowest_s <= _SHORT_S and self._runs >= self._distrusted_until

    @property
    def most_rows_per_s(self) -> float:
        """Rows a second of runs of the size at which they are cheapest; 0 before the first run. Needs no lock."""
        return max((rows / seconds for rows, seconds in list(self._averages.values()) if seconds > 0), default=0.0)

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
