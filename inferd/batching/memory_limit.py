"""The most rows of a run, where more rows have been out of memory."""

import logging
import threading
from collections.abc import Callable

from inferd.batching.ports import Alarm, Clock, weak_callback

_logger = logging.getLogger("inferd.batching")

#: When twice the rows are tried again, as others may have given memory back. The delay doubles with each trial that
#: fails, because that costs a run.
_FIRST_TRIAL_S = 60.0
_LAST_TRIAL_S = 6 * 3600.0


class MemoryLimit:
    """Remembers the largest number of rows that works, and tries more after a while.

    Invariants: ``rows`` is at least 1 and at most ``most_rows``, those of a full batch; ``on_change`` has been
    called with it last. `learned` is called by the threads that run batches, the rest happens in the alarm's thread.
    """

    def __init__(
        self, *, name: str, most_rows: int, clock: Clock, alarm: Alarm, on_change: Callable[[int], None]
    ) -> None:
        self._name = name
        self._most_rows = most_rows
        self._clock = clock
        self._alarm = alarm
        self._on_change = on_change
        self._lock = threading.Lock()
        #: The most rows of a run at present.
        self.rows = most_rows
        self._trial_s = _FIRST_TRIAL_S
        self._trial_at = 0.0
        self._was_raised = False

    def begin_with(self, rows: int) -> None:
        """Take ``rows`` that were remembered for the limit; before the first run."""
        with self._lock:
            if rows < self.rows:
                self._set(rows, is_raised=False)

    def learned(self, rows: int) -> None:
        """Note that a run of ``rows`` worked after one of more rows was out of memory."""
        with self._lock:
            if rows >= self.rows:
                return
            if self._was_raised:
                self._trial_s = min(2 * self._trial_s, _LAST_TRIAL_S)
            self._set(rows, is_raised=False)
        _logger.warning(
            "runs of model %s are out of memory: it runs at most %d rows at once, and tries more in %d s; a lower "
            "batching.max_batch_size avoids the failed runs",
            self._name,
            rows,
            self._trial_s,
        )

    def _try_more(self) -> None:
        with self._lock:
            # The limit may have been lowered since the alarm was set, with a later alarm.
            if self._clock() < self._trial_at or self.rows == self._most_rows:
                return
            self._set(min(2 * self.rows, self._most_rows), is_raised=True)
        _logger.info("model %s runs up to %d rows at once again", self._name, self.rows)

    def _set(self, rows: int, *, is_raised: bool) -> None:
        """Change the limit, and try a higher one later; with the lock, so that changes are reported in their order."""
        self.rows = rows
        self._was_raised = is_raised
        self._on_change(rows)
        if rows < self._most_rows:
            self._trial_at = self._clock() + self._trial_s
            self._alarm.call_at(self._trial_at, weak_callback(self._try_more))
