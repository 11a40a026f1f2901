"""Pause loads and unloads between their steps while the server is busy, so that requests go first."""

from collections.abc import Callable

from inferd.batching.idle_cores import IdleCores
from inferd.batching.ports import Clock

#: Time for the poll thread to handle the requests that arrived during a step. It takes the interpreter lock several
#: times for each, and next to a thread that keeps the lock busy, each time takes about as long.
_PAUSE_S = 0.004

#: Time after a batch in which others are expected.
_SERVING_S = 1.0


class RequestsFirst:
    """Pauses the threads that load and unload, while ``cores`` run batches or have just done so.

    At other times a pause takes microseconds, so that the models of a start are loaded at full speed. Any thread may
    call; without a lock, as a race only shifts the times slightly.
    """

    def __init__(self, cores: IdleCores, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._cores = cores
        self._clock = clock
        self._sleep = sleep
        self._begun = 0
        self._serving_until = 0.0

    def pause(self) -> None:
        """Sleep for a moment if requests are likely. Call it after each millisecond of work or so."""
        begun, now = self._cores.begun, self._clock()
        if begun != self._begun:
            self._begun = begun
            self._serving_until = now + _SERVING_S
        if now < self._serving_until:
            self._sleep(_PAUSE_S)
