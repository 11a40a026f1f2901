"""Turns of the poll thread and the http thread, which share the interpreter lock.

While calls of both protocols come, each gives way after every few pieces of work, so that a flood of one protocol does
not hold up the calls of the other (docs/decisions/rpc-turns.md).
"""

import math
import time
from collections.abc import Callable

from inferd.interpreter_lock import let_others_run, let_others_wake

#: Pieces of work, such as events or requests to be read, after which a thread gives way.
PIECES = 8
#: A protocol counts as used for so long after its last call: without calls, no thread gives way.
_USED_S = 0.1


def _never() -> bool:
    return False


class Turns:
    """Says when the poll thread and the http thread give way to each other.

    Threads: each method is for one thread; the attributes may be read by the other.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        let_run: Callable[[], object] = let_others_run,
        let_wake: Callable[[], object] = let_others_wake,
    ) -> None:
        self._clock = clock
        self._let_run = let_run
        self._let_wake = let_wake
        self._rpc_until = self._http_until = -math.inf
        #: Returns whether the http thread has something to do; any thread.
        self.http_waits: Callable[[], bool] = _never

    def rpc_used(self) -> None:
        """Note that calls over gRPC come; on the poll thread."""
        self._rpc_until = self._clock() + _USED_S

    def http_used(self) -> None:
        """Note that calls over HTTP come; on the poll thread."""
        self._http_until = self._clock() + _USED_S

    @property
    def are_shared(self) -> bool:
        """Whether calls of both protocols come, so that each thread is to give way now and then; any thread."""
        now = self._clock()
        return now < self._rpc_until and now < self._http_until

    def let_http(self) -> None:
        """Give way to the http thread if it has something to do; on the poll thread."""
        if self.http_waits():
            self._let_run()

    def let_rpc(self, *, is_flooded: bool) -> None:
        """Give way to the poll thread; on the http thread, which ``is_flooded`` if it has much to do."""
        if is_flooded:
            self._let_wake()
        else:
            self._let_run()
