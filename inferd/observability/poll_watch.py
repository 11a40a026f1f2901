"""Report not ready, or not alive, when the poll thread is too far behind."""

import logging
from collections.abc import Callable

from inferd.periodic_thread import PeriodicThread

#: The interval of measuring the lag.
_PERIOD_S = 1.0

_log = logging.getLogger(__name__)


class PollWatch:
    """Compares the lag of the poll thread, ``lag_s``, with two limits, on demand and once a second.

    Its thread logs changes and calls ``on_change``. Independent of the poll thread. Threads: ``start`` and ``stop`` one
    after the other; ``check`` its own; the rest any.
    """

    def __init__(
        self,
        lag_s: Callable[[], float],
        *,
        ready_max_lag_s: float,
        live_max_lag_s: float,
        on_change: Callable[[], None],
    ) -> None:
        self._lag_s = lag_s
        self._ready_max_lag_s = ready_max_lag_s
        self._live_max_lag_s = live_max_lag_s
        self._on_change = on_change
        self._reported: tuple[bool, bool] = (False, False)
        self._thread = PeriodicThread("poll-watch", period_s=_PERIOD_S, action=self.check)

    def why_not_ready(self) -> str:
        """Return why the server is not ready for calls; empty if it is."""
        return self._beyond(self._ready_max_lag_s, "server.ready_max_lag_s")

    def why_not_alive(self) -> str:
        """Return why the process should be restarted; empty if it is alive."""
        return self._beyond(self._live_max_lag_s, "server.live_max_lag_s")

    def start(self) -> None:
        """Start checking once a second."""
        self._thread.start()

    def stop(self) -> None:
        """Stop checking; no effect if never started."""
        self._thread.stop()

    def check(self) -> None:
        """Check once; log a change."""
        not_ready, not_alive = self.why_not_ready(), self.why_not_alive()
        found = (bool(not_ready), bool(not_alive))
        if found == self._reported:
            return
        before, self._reported = self._reported, found
        if not_alive and not before[1]:
            _log.error("not alive: %s", not_alive)
        elif not_ready and not before[0]:
            _log.error("not ready: %s", not_ready)
        elif not not_ready:
            _log.warning("poll thread recovered, ready again")
        self._on_change()

    def _beyond(self, max_s: float, setting: str) -> str:
        lag_s = self._lag_s()
        return f"the poll thread is {lag_s:.1f} s behind, {setting} is {max_s:g}" if lag_s >= max_s else ""
