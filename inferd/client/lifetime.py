"""Whether a client may be used: still, here and now."""

import asyncio
import os

# To ask the system anew for each call would take longer than all other checks together.
_process = os.getpid()


def _note_process() -> None:
    global _process  # noqa: PLW0603 - what it is about is global too
    _process = os.getpid()


os.register_at_fork(after_in_child=_note_process)


class Lifetime:
    """The process that a client was made in, the event loop that it belongs to if any, and whether it was closed."""

    def __init__(self) -> None:
        self._process = _process
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False

    @property
    def forked(self) -> bool:
        """Whether this is another process than the client's own."""
        return self._process != _process

    def check_process(self) -> None:
        """Raise RuntimeError in a fork, where gRPC itself would hang."""
        if self._process != _process:
            raise self._used_in_fork()

    def check(self) -> None:
        """As `check_process`, and raise RuntimeError after the end, where gRPC's own text would help nobody."""
        if self._process != _process:
            raise self._used_in_fork()
        if self.closed:
            msg = "the client is closed"
            raise RuntimeError(msg)

    def check_loop(self) -> None:
        """As `check`, and raise RuntimeError in another event loop than the first in which this was asked."""
        self.check()
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None:
                msg = "this client belongs to the event loop of its first call: make one in each event loop"
                raise RuntimeError(msg)
            self._loop = loop

    def _used_in_fork(self) -> RuntimeError:
        return RuntimeError(
            f"this client was made in process {self._process} and cannot be used in its fork {_process}: "
            "make one in each process"
        )
