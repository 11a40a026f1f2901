"""The hand-over between the http thread and the poll thread: what has come by then goes over in one step.

Waking a thread costs tens of microseconds, and the two take turns at the interpreter lock. So what the http thread has
read in one round of its loop goes to the poll thread together, and the answers of a round of that one come back
together.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from inferd.rpc.poll_loop import PollLoop

_log = logging.getLogger(__name__)

#: Work done in one round of the poll thread, which serves gRPC in between.
_MAX_AT_ONCE = 64
#: How late the poll thread hears at most of what it need not hear of at once.
_LATE_S = 0.02

Work = Callable[[], None]


class Waiter(Protocol):
    """Waits on the http thread for what the poll thread does."""

    def wake(self) -> None:
        """Go on; on the http thread."""
        ...


class HandOver:
    """Invariants: work is done in the order of its submission. After `close` none is taken: ``refused`` is called.

    Threads: `submit` and `submit_late` the http thread, `answered` and `on_http_thread` any, `close` the poll thread.
    """

    def __init__(self, poll_loop: PollLoop, refused: Work) -> None:
        self._poll_loop = poll_loop
        self._refused = refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        #: From the http thread, and what of that is on its way; and whether a step of its loop will send it on.
        self._collected: list[Work] = []
        self._sent: deque[Work] = deque()
        self._is_sending = False
        self._is_late = False
        #: From the other threads, and whether the http thread will look.
        self._answered: deque[Waiter] = deque()
        self._is_waking = False

    # -- to the poll thread

    def submit(self, work: Work) -> None:
        """Do ``work`` on the poll thread, soon."""
        self._collected.append(work)
        if not self._is_sending:
            self._is_sending = True
            loop = self._loop
            if loop is None:
                loop = self._loop = asyncio.get_running_loop()
            loop.call_soon(self._send)

    def submit_late(self, work: Work) -> None:
        """Do ``work`` on the poll thread when there is more to do, or a little later."""
        self._collected.append(work)
        if not (self._is_sending or self._is_late) and self._loop is not None:
            self._is_late = True
            self._loop.call_later(_LATE_S, self._send_late)

    def close(self) -> bool:
        """Take no more work. Returns False, without effect, if there is some."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = not self._sent
        if self._is_closed and self._answered:
            # The poll loop takes no further step, in which it would be done.
            self._wake()
        return self._is_closed

    def _send_late(self) -> None:
        self._is_late = False
        if self._collected and not self._is_sending:
            self._send()

    def _send(self) -> None:
        self._is_sending = False
        collected, self._collected = self._collected, []
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._sent.extend(collected)
        if is_closed:
            self._refused()
        else:
            self._poll_loop.call_soon(self._take)

    def _take(self) -> None:
        sent = self._sent
        for _ in range(min(len(sent), _MAX_AT_ONCE)):
            work = sent.popleft()
            try:
                work()
            except Exception:  # noqa: BLE001  the others must go on
                _log.exception("a step of a call over HTTP failed")
        if sent:
            self._poll_loop.call_soon(self._take)

    # -- to the http thread

    def answered(self, waiter: Waiter) -> None:
        """Wake ``waiter``, with others if this is the poll thread."""
        self._answered.append(waiter)
        if not self._is_waking:
            self._is_waking = True
            if self._poll_loop.in_poll_thread:
                self._poll_loop.call_soon(self._wake)
            else:
                self._wake()

    def on_http_thread(self, work: Work) -> None:
        """Do ``work`` on the http thread, soon; never if that has ended."""
        with suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(work)

    def _wake(self) -> None:
        self.on_http_thread(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False
        answered = self._answered
        while answered:
            answered.popleft().wake()
