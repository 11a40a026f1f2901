"""The selector of the http thread, which takes turns with the poll thread."""

import select
import selectors
from typing import Any

from inferd.rpc.turns import HTTP_PIECES, Turns

_Ready = list[tuple[selectors.SelectorKey, int]]


class TurnTakingSelector(selectors.DefaultSelector):
    """While calls over gRPC come too, returns few ready sockets at a time, and gives way to the poll thread in between.

    Sockets that are held back are returned by the next calls, unless they have been unregistered or changed meanwhile:
    then the system reports them again.

    Threads: `has_work` any, the rest the http thread.
    """

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self._turns = turns
        self._held: _Ready = []
        #: Whether many sockets were ready the last time that the system was asked.
        self._is_flooded = False
        self._is_selecting = False
        self._readable = select.poll()
        self._readable.register(self.fileno(), select.POLLIN)

    def has_work(self) -> bool:
        """Return whether the http thread is busy or has sockets that are ready."""
        return not self._is_selecting or bool(self._readable.poll(0))

    def select(self, timeout: float | None = None) -> _Ready:
        """See `selectors.BaseSelector.select`."""
        turns = self._turns
        is_shared = turns.are_shared
        if is_shared:
            turns.let_rpc(is_flooded=self._is_flooded)
        ready, self._held = self._still_registered(self._held), []
        if not ready:
            self._is_selecting = True
            ready = super().select(timeout)
            self._is_selecting = False
        self._is_flooded = len(ready) >= HTTP_PIECES
        if is_shared:
            ready, self._held = ready[:HTTP_PIECES], ready[HTTP_PIECES:]
        return ready

    def _still_registered(self, held: _Ready) -> _Ready:
        registered: Any = self.get_map()
        return [(key, events) for key, events in held if registered.get(key.fileobj) is key]
