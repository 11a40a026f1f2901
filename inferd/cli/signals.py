"""Signal handling of commands that end in their own time."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_log = logging.getLogger(__name__)

#: Exit status of a process ended by a signal, by convention: this plus the signal's number.
_SIGNAL_BASE = 128


def install_signal_handlers(on_stop: Callable[[], None], *, on_hangup: Callable[[], None] | None) -> None:
    """Call ``on_stop`` on the first SIGTERM or SIGINT, and exit at once on the second.

    SIGHUP calls ``on_hangup``; with None, it ends the process as by default. This starts the thread that calls both.

    The kernel may deliver a signal to any thread, for example to one of gRPC's that is starting another. Python runs
    its handlers in the main thread only, and nothing wakes that thread then: under load, one SIGTERM in several hundred
    was lost. The byte that Python's C handler writes to the wake-up descriptor, in any thread, always arrives.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, _ignore)
    signal.signal(signal.SIGINT, _ignore)
    if on_hangup is not None:
        signal.signal(signal.SIGHUP, _ignore)
    threading.Thread(target=_handle_signals, args=(readable, on_stop, on_hangup), name="signals", daemon=True).start()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the thread handles the signal."""


def _handle_signals(readable: int, on_stop: Callable[[], None], on_hangup: Callable[[], None] | None) -> None:
    stopping = False
    while True:
        (number,) = os.read(readable, 1)
        if number == signal.SIGHUP and on_hangup is not None:
            _run_guarded("SIGHUP", on_hangup)
        elif stopping:
            os._exit(_SIGNAL_BASE + number)
        else:
            stopping = True
            _run_guarded("stop", on_stop)


def _run_guarded(name: str, callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001  the thread must survive for the stop signals
        _log.exception("%s handler failed", name)
