"""A thread that repeats one action."""

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class PeriodicThread:
    """Calls ``action`` every ``period_s`` seconds, and at once when woken; its errors are logged.

    Threads: ``wake`` any; ``start``, then ``stop``, once each; ``action`` runs in a daemon thread of its own,
    so it may block. ``stop`` without ``start`` does nothing.
    """

    def __init__(self, name: str, *, period_s: float, action: Callable[[], None]) -> None:
        self._period_s = period_s
        self._action = action
        self._woken = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; the first call comes after one period."""
        self._thread.start()

    def wake(self) -> None:
        """Call the action now."""
        self._woken.set()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the thread; wait at most ``timeout_s`` for a call that is running."""
        self._stopping = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._woken.wait(self._period_s)
            self._woken.clear()
            if self._stopping:
                return
            try:
                self._action()
            except Exception:  # noqa: BLE001  one failure must not prevent later calls
                _log.exception("%s failed", self._thread.name)
