"""How fast the queue drains: how much may wait, and when a refused caller should try again. Pure."""

#: Share of the past that is kept for each batch that is added: about the last twenty batches count.
_KEPT = 0.95
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: Before any batch has run there is nothing to compute from.
_UNKNOWN_HINT_S = 1.0


class DrainRate:
    """Rows that leave the queue in a second when there are always some to take.

    Measured from one batch that is taken to the next, and only where the first left something behind: so whatever it
    is that takes the time counts, the model, its workers or the handling of requests, and idle time does not make the
    rate look low. Not thread-safe: guarded by the lock of the `RequestQueue` that it is a part of.
    """

    def __init__(self) -> None:
        #: The rate, or None while nothing is known of it.
        self.rows_per_s: float | None = None
        self._rows = 0.0
        self._seconds = 0.0
        self._last_rows = 0
        self._last_at: float | None = None

    def taken(self, rows: int, now: float, *, left: int) -> None:
        """A batch of ``rows`` was taken at ``now``, and ``left`` rows still wait."""
        if self._last_at is not None:
            self._rows = self._rows * _KEPT + self._last_rows
            self._seconds = self._seconds * _KEPT + (now - self._last_at)
            self.rows_per_s = self._rows / self._seconds if self._seconds > 0 else None
        self._last_rows = rows
        self._last_at = now if left else None

    def interrupted(self) -> None:
        """How long the batch that was taken last held up the next one says nothing of others."""
        self._last_at = None


def retry_after_s(waiting_rows: int, rows_per_s: float | None) -> float:
    """When the rows that wait now will have been taken, so that a retry is likely to be admitted."""
    if not rows_per_s:
        return _UNKNOWN_HINT_S
    return min(max(waiting_rows / rows_per_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)
