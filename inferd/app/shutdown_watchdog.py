"""End the process if its orderly shutdown hangs."""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

_log = logging.getLogger("inferd.app")

#: Time for writing the log, which may hang itself.
_REPORT_S = 0.5
#: How much later the interpreter's own watchdog ends the process; it does not need the interpreter lock.
_FAULTHANDLER_S = 0.5
_STDERR = 2
_EXIT_STATUS = 1
#: Maximum number of threads in the log.
_MAX_THREADS = 64


class ShutdownWatchdog:
    """Exits with status 1 unless it is disarmed in time.

    It runs in its own thread, so that it works whatever hangs. If the hanging thread holds the interpreter lock, the
    interpreter's watchdog ends the process and writes a traceback of every thread to standard error. ``describe``
    returns what is unfinished, and ``flush`` writes the log.
    """

    def __init__(
        self,
        *,
        describe: Callable[[], dict[str, object]],
        flush: Callable[[], object],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._describe = describe
        self._flush = flush
        self._end = end
        self._disarmed = threading.Event()

    def arm(self, seconds: float) -> None:
        """End the process after ``seconds``."""
        faulthandler.dump_traceback_later(seconds + _REPORT_S + _FAULTHANDLER_S, file=_STDERR, exit=True)
        threading.Thread(target=self._wait, args=(seconds,), name="shutdown-watchdog", daemon=True).start()

    def disarm(self) -> None:
        """Stop watching; the shutdown is complete."""
        self._disarmed.set()
        faulthandler.cancel_dump_traceback_later()

    def _wait(self, seconds: float) -> None:
        if self._disarmed.wait(seconds):
            return
        reporter = threading.Thread(target=self._report, name="shutdown-report", daemon=True)
        reporter.start()
        reporter.join(_REPORT_S)
        self._end(_EXIT_STATUS)

    def _report(self) -> None:
        _log.critical("shutdown timed out, exiting", extra={**self._describe(), "threads": list(_running_threads())})
        self._flush()


def _running_threads() -> Iterator[str]:
    """Yield the name of each other thread with the function that it is in."""
    frames = sys._current_frames()
    for thread in threading.enumerate()[:_MAX_THREADS]:
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            yield f"{thread.name}: {frame.f_code.co_qualname}"
