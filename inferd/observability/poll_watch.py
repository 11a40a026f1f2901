"""Says when the poll thread is so far behind that the server should get no more calls, or be started anew."""

import logging
import threading
from collections.abc import Callable

#: The lag itself is measured once a second.
_PERIOD_S = 1.0

_log = logging.getLogger(__name__)


class PollWatch:
    """Judges how far the poll thread is behind, ``lag_s``, whenever it is asked and once a second by itself.

    ``on_change`` is called by its thread when the judgement may have changed, which it also logs. Threads: ``start``
    and ``stop`` one after the other; ``check`` is its own; the rest any. None of it needs the poll thread.
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
        self._told: tuple[bool, bool] = (False, False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poll-watch", daemon=True)

    def why_not_ready(self) -> str:
        """Return why the server should get no calls, empty if it may."""
        return self._beyond(self._ready_max_lag_s, "server.ready_max_lag_s")

    def why_not_alive(self) -> str:
        """Return why the process should be started anew, empty if it is well."""
        return self._beyond(self._live_max_lag_s, "server.live_max_lag_s")

    def start(self) -> None:
        """Begin to look by itself."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; does nothing if it never started."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Look once."""
        not_ready, not_alive = self.why_not_ready(), self.why_not_alive()
        found = (bool(not_ready), bool(not_alive))
        if found == self._told:
            return
        before, self._told = self._told, found
        if not_alive and not before[1]:
            _log.error("not alive: %s", not_alive)
        elif not_ready and not before[0]:
            _log.error("not ready: %s", not_ready)
        elif not not_ready:
            _log.warning("the poll thread goes on, ready again")
        self._on_change()

    def _beyond(self, most_s: float, setting: str) -> str:
        lag_s = self._lag_s()
        return f"the poll thread is {lag_s:.1f} s behind, {setting} is {most_s:g}" if lag_s >= most_s else ""

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_S):
            self.check()
