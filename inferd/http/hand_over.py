"""Hand work over between the http thread and the poll thread, many pieces at a time.

Waking a thread costs tens of microseconds, and the two contend for the interpreter lock. So the requests of one round
of the http thread's loop go to the poll thread together, and the answers of one round of the poll loop come back
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
from inferd.rpc.turns import HTTP_PIECES, Turns

_log = logging.getLogger(__name__)

#: Work done in one round of the poll loop, which serves gRPC in between.
_MAX_AT_ONCE = 64
#: Longest delay of work that is not urgent.
_LATE_S = 0.02

Work = Callable[[], None]


class Waiter(Protocol):
    """Waits on the http thread for the poll thread."""

    def wake(self) -> None:
        """Continue; on the http thread."""
        ...


class HandOver:
    """Passes work to the poll thread, and wakes requests on the http thread.

    Invariant: work is done in the order of its submission. Work submitted after `close` is dropped, and ``on_closed``
    called on the http thread.

    Threads: `submit` and `submit_late` the http thread, `wake` and `on_http_thread` any, `close` the poll thread.
    """

    def __init__(self, poll_loop: PollLoop, turns: Turns, on_closed: Work) -> None:
        self._poll_loop = poll_loop
        self._turns = turns
        self._on_closed = on_closed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        #: Submitted work; work on its way to the poll thread; if a step of the http loop will send the first.
        self._collected: list[Work] = []
        self._sent: deque[Work] = deque()
        self._is_sending = False
        self._is_late = False
        #: To be woken on the http thread; if a step of its loop will do that.
        self._woken: deque[Waiter] = deque()
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
        """Accept no more work. Returns False, without effect, if some is on its way."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = not self._sent
        if self._is_closed and self._woken:
            # The poll loop takes no further step that would do it.
            self._wake_http_thread()
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
                self._turns.http_arrived = True
        if is_closed:
            self._on_closed()
        else:
            self._poll_loop.call_soon(self._do)

    def _do(self) -> None:
        self._turns.http_used()
        self._turns.http_arrived = False
        sent = self._sent
        for _ in range(min(len(sent), _MAX_AT_ONCE)):
            work = sent.popleft()
            try:
                work()
            except Exception:  # noqa: BLE001  the others must go on
                _log.exception("a step of a call over HTTP failed")
        if sent:
            self._poll_loop.call_soon(self._do)

    # -- to the http thread

    def wake(self, waiter: Waiter) -> None:
        """Wake ``waiter`` on the http thread; on the poll thread, together with the others of this round."""
        self._woken.append(waiter)
        if not self._is_waking:
            self._is_waking = True
            if self._poll_loop.in_poll_thread:
                self._poll_loop.call_at_end(self._wake_http_thread)
            else:
                self._wake_http_thread()

    def on_http_thread(self, work: Work) -> None:
        """Do ``work`` on the http thread, soon; never if that has ended."""
        with suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(work)

    def _wake_http_thread(self) -> None:
        self.on_http_thread(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False
        turns, woken = self._turns, self._woken
        is_shared, number = turns.are_shared, 0
        while woken:
            woken.popleft().wake()
            number += 1
            if is_shared and number % HTTP_PIECES == 0:
                turns.let_rpc(is_flooded=True)
