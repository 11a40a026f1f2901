"""Ends the process when its orderly end does not come."""

import faulthandler
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

_log = logging.getLogger(__name__)

#: What a log that hangs itself may take of the time.
_TELL_S = 0.5
#: How much later the interpreter's own watchdog ends the process, which needs no lock of Python's.
_WITHOUT_PYTHON_S = 0.5
_STANDARD_ERROR = 2
_FAILED = 1
#: Threads that are named in the log.
_MOST_THREADS = 64


class LastResort:
    """Ends the process with exit status 1 unless it is disarmed in time.

    In a thread of its own, so that it does not matter what hangs; and if that is a thread that keeps Python's
    interpreter lock, by the interpreter's watchdog, which then writes to standard error where every thread is.
    ``describe`` says what is not done yet, and ``flush`` has the log written.
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
        """End the process after so many ``seconds``."""
        faulthandler.dump_traceback_later(seconds + _TELL_S + _WITHOUT_PYTHON_S, file=_STANDARD_ERROR, exit=True)
        threading.Thread(target=self._wait, args=(seconds,), name="last-resort", daemon=True).start()

    def disarm(self) -> None:
        """The end has come in good order."""
        self._disarmed.set()
        faulthandler.cancel_dump_traceback_later()

    def _wait(self, seconds: float) -> None:
        if self._disarmed.wait(seconds):
            return
        telling = threading.Thread(target=self._tell, name="last-words", daemon=True)
        telling.start()
        telling.join(_TELL_S)
        self._end(_FAILED)

    def _tell(self) -> None:
        _log.critical(
            "the server does not end, and is made to", extra={**self._describe(), "threads": list(_threads())}
        )
        self._flush()


def _threads() -> Iterator[str]:
    """Yield what each thread is in."""
    frames = sys._current_frames()
    for thread in threading.enumerate()[:_MOST_THREADS]:
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            yield f"{thread.name}: {frame.f_code.co_qualname}"
