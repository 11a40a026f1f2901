"""How fast the queue drains, and so when a refused caller should try again. Pure."""

#: Share of the past that is kept for each batch that is added: about the last ten batches count.
_KEPT = 0.9
_SHORTEST_HINT_S = 0.01
_LONGEST_HINT_S = 30.0
#: Before any batch has run there is nothing to compute from.
_UNKNOWN_HINT_S = 1.0


class DrainRate:
    """Rows that all workers together run in a second, when they have enough to do.

    Measured over the time that the workers spend on batches, so that idle time does not make the rate look low. Not
    thread-safe: guarded by the lock of the `RequestQueue` that it is a part of.
    """

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._rows = 0.0
        self._busy_s = 0.0

    def ran(self, rows: int, busy_s: float) -> None:
        """One worker spent ``busy_s`` on a batch of ``rows``."""
        self._rows = self._rows * _KEPT + rows
        self._busy_s = self._busy_s * _KEPT + busy_s

    @property
    def rows_per_s(self) -> float | None:
        """The rate, or None while nothing is known of it."""
        return self._workers * self._rows / self._busy_s if self._busy_s > 0 else None


def retry_after_s(waiting_rows: int, rows_per_s: float | None) -> float:
    """When the rows that wait now will have been taken, so that a retry is likely to be admitted."""
    if not rows_per_s:
        return _UNKNOWN_HINT_S
    return min(max(waiting_rows / rows_per_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)
