"""The orderly end of a server."""

from collections.abc import Callable

from inferd.rpc import core
from inferd.rpc.cut_off import Ends
from inferd.rpc.poll_loop import PollLoop


class Shutdown:
    """Takes no new calls, waits for those there are, cancels what is left; on the poll thread only.

    The core may only be freed when everything it was asked for has come back: ``is_over``.
    """

    def __init__(
        self,
        server: core.CoreServer,
        queue: core.Queue,
        loop: PollLoop,
        is_idle: Callable[[], bool],
        ends: Ends,
    ) -> None:
        self._server = server
        self._ends = ends
        self._queue = queue
        self._loop = loop
        self._is_idle = is_idle
        self._has_begun = False
        self._core_is_done = False

    def begin(self, cancel_at: float) -> None:
        """Send GOAWAY; cancel what is left at ``cancel_at``. Again: cancel earlier, if that is earlier."""
        if not self._has_begun:
            self._has_begun = True
            self._server.shutdown(self._queue, self._on_done)
            self._loop.run_until(self.is_over)
        self._loop.call_at(cancel_at, self._cancel)

    def _cancel(self) -> None:
        self._ends.is_stopped = True
        self._server.cancel_all_calls()

    def is_over(self) -> bool:
        """Whether nothing is left that the core would tell of."""
        return self._core_is_done and self._is_idle()

    def _on_done(self, _event: core.Event) -> None:
        self._core_is_done = True
