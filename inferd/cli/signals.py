"""What signals make the server do."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType

_log = logging.getLogger(__name__)

#: By convention the exit status of a process that a signal ended is this much above the signal's number.
_SIGNAL_BASE = 128


def heed_signals(events: SimpleQueue[str], *, on_hangup: Callable[[], None] | None) -> None:
    """Have the first stop signal end the server in good order, and the second one at once.

    SIGHUP calls ``on_hangup``, in the thread that is started here; if that is None it ends the process as ever.

    The kernel may give a signal to any thread, for example to one of gRPC's that is starting another. Python's handlers
    run in the main thread only, and nothing wakes it then: under load, one SIGTERM in some hundreds was not heeded. The
    byte that Python's own C handler writes, in whichever thread, always arrives.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, _left_to_the_thread)
    signal.signal(signal.SIGINT, _left_to_the_thread)
    if on_hangup is not None:
        signal.signal(signal.SIGHUP, _left_to_the_thread)
    threading.Thread(target=_heed, args=(readable, events, on_hangup), name="signals", daemon=True).start()


def _left_to_the_thread(_number: int, _frame: FrameType | None) -> None:
    pass


def _guarded(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception:  # noqa: BLE001  stop signals must be heeded all the same
        _log.exception("SIGHUP could not be heeded")


def _heed(readable: int, events: SimpleQueue[str], on_hangup: Callable[[], None] | None) -> None:
    stopping = False
    while True:
        (number,) = os.read(readable, 1)
        if number == signal.SIGHUP and on_hangup is not None:
            _guarded(on_hangup)
        elif stopping:
            os._exit(_SIGNAL_BASE + number)
        else:
            stopping = True
            events.put("stop")
