"""How long runs take: what two of them cost more than one of both, and whether they are short. Pure."""

from dataclasses import dataclass

#: An average counts for as many runs as it is of, but not for more than these, and fades at each fit to not less than
#: one: what is fresh counts more than how it began, and a size that comes back is soon known anew.
_MOST_RUNS = 8.0
_KEPT = 0.9
#: Runs after which the cost is worked out anew.
_RUNS_PER_FIT = 16
#: A run is short if it takes less than it takes to wake another thread for it, which then fetches Python's interpreter
#: lock from another core.
_SHORT_S = 0.0003
#: Runs that are held up more often than so are not short, whatever it is that they wait for.
_MOST_LONG = 0.5
#: After one that took this long by itself, none counts as short for so many runs: some models take as long as their
#: inputs say.
_FAR_FROM_SHORT_S = 0.01
_RUNS_UNTIL_TRUSTED = 10_000


@dataclass(slots=True)
class _Average:
    """Of runs of about one size; so many ``runs`` as it counts for."""

    rows: float = 0.0
    seconds: float = 0.0
    own_s: float = 0.0
    runs: float = 0.0

    def add(self, rows: int, seconds: float, own_s: float) -> None:
        self.runs = min(self.runs + 1, _MOST_RUNS)
        self.rows += (rows - self.rows) / self.runs
        self.seconds += (seconds - self.seconds) / self.runs
        self.own_s += (own_s - self.own_s) / self.runs


class RunCost:
    """Learns the duration of a run as a fixed part and a part for each row, from the runs as they are.

    Runs are averaged by size, in steps of powers of two, so that sizes that were rare lately keep their say. Only runs
    of which it is known beforehand that they ``are_bounded`` by their rows can be short: of others, those that were say
    nothing of the next. Not thread-safe: guarded by the lock of the `RequestQueue` that it is a part of.
    """

    def __init__(self, *, are_bounded: bool = True) -> None:
        self._are_bounded = are_bounded
        self._averages: dict[int, _Average] = {}
        #: How many there have been.
        self.runs = 0
        #: The fixed part in seconds; None while all runs were of about one size.
        self.fixed_s: float | None = None
        #: The part for each row in seconds; 0 until the fixed part is known.
        self.row_s = 0.0
        #: Whether runs of the sizes that there have been are short.
        self.is_short = False
        self._distrusted_until = 0
        #: Of the latest runs, the share that took longer than short ones, whatever held them up.
        self._long_share = 0.0

    def ran(self, rows: int, seconds: float, cpu_s: float | None = None) -> None:
        """A batch of ``rows`` took ``seconds``, and its thread ``cpu_s`` of processor time; None if that says nothing.

        A run that took longer than that was held up: by another thread with Python's interpreter lock, or by another
        process. That now and then happens to any model, however short its runs are.
        """
        own_s = seconds if cpu_s is None else min(cpu_s, seconds)
        self._averages.setdefault(rows.bit_length(), _Average()).add(rows, seconds, own_s)
        self.runs += 1
        self._long_share += ((seconds > _SHORT_S) - self._long_share) / _RUNS_PER_FIT
        if own_s >= _FAR_FROM_SHORT_S:
            self._distrusted_until = self.runs + _RUNS_UNTIL_TRUSTED
            self.is_short = False
        if self.runs % _RUNS_PER_FIT == 0:
            self._fit()
            slowest_s = max(average.own_s for average in self._averages.values())
            is_trusted = self._long_share < _MOST_LONG and self.runs >= self._distrusted_until
            self.is_short = self._are_bounded and slowest_s <= _SHORT_S and is_trusted

    def is_short_of(self, rows: int) -> bool:
        """Whether a run of so many ``rows`` is short: there have been ones of about this size, and all are."""
        return self.is_short and rows.bit_length() in self._averages

    def never_short(self) -> None:
        """Believe no longer that the length of a run follows from its rows."""
        self._are_bounded = self.is_short = False

    @property
    def most_rows_per_s(self) -> float:
        """Rows a second of runs of the size at which they are cheapest; 0 before the first run. Needs no lock."""
        averages = list(self._averages.values())
        return max((average.rows / average.seconds for average in averages if average.seconds > 0), default=0.0)

    def _fit(self) -> None:
        """Take both parts from the straight line through the averages, neither below nothing."""
        if len(self._averages) < 2:
            return
        averages = self._averages.values()
        runs = sum(average.runs for average in averages)
        mean_rows = sum(average.rows * average.runs for average in averages) / runs
        mean_s = sum(average.seconds * average.runs for average in averages) / runs
        spread = slope = 0.0
        for average in averages:
            from_mean = (average.rows - mean_rows) * average.runs
            spread += (average.rows - mean_rows) * from_mean
            slope += (average.seconds - mean_s) * from_mean
            average.runs = max(average.runs * _KEPT, 1.0)
        slope /= spread
        self.fixed_s = max(mean_s - slope * mean_rows, 0.0)
        self.row_s = max(slope, 0.0)
