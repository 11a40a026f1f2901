"""Turns of the poll thread and the http thread, which share the interpreter lock.

While calls of both protocols come, each gives way after every few pieces of work, so that a flood of one protocol does
not hold up the calls of the other (docs/decisions/rpc-turns.md).
"""

import math
import time
from collections.abc import Callable

from inferd.interpreter_lock import POLL_THREAD, USED_S, UrgentThread, let_others_run

#: Pieces of work, such as sockets to be read or answers, after which the http thread gives way.
HTTP_PIECES = 8
#: Events or batches after which the poll thread gives way.
POLL_PIECES = 4


def _never() -> bool:
    return False


class Turns:
    """Says when the poll thread and the http thread give way to each other.

    Threads: each method is for one thread; the attributes may be read by the other.
    """

    def __init__(
        self,
        poll_thread: UrgentThread = POLL_THREAD,
        *,
        clock: Callable[[], float] = time.monotonic,
        let_run: Callable[[], object] = let_others_run,
    ) -> None:
        self.poll_thread = poll_thread
        self._clock = clock
        self._let_run = let_run
        self._http_until = -math.inf
        #: Whether work of the http thread waits for the poll thread.
        self.http_arrived = False
        #: Returns whether the http thread has something to do; any thread.
        self.http_waits: Callable[[], bool] = _never

    def http_used(self) -> None:
        """Note that calls over HTTP come; on the poll thread."""
        self._http_until = self._clock() + USED_S

    @property
    def are_shared(self) -> bool:
        """Whether calls of both protocols come, so that each thread is to give way now and then; any thread."""
        return self._clock() < self._http_until and self.poll_thread.is_used

    def let_http(self) -> None:
        """Give way to the http thread if it has something to do; on the poll thread."""
        self.poll_thread.release()
        if self.http_waits():
            self._let_run()

    def let_rpc(self, *, is_flooded: bool) -> None:
        """Give way to the poll thread; on the http thread, which ``is_flooded`` if it has much to do."""
        if is_flooded:
            self.poll_thread.give_way(may_sleep=True)
        else:
            # It may receive large bodies, and does not wait for a flood over gRPC.
            self._let_run()
