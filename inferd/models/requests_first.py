"""Lets requests go first where models are loaded and unloaded: pauses between the steps of that."""

from collections.abc import Callable

from inferd.batching.idle_cores import IdleCores
from inferd.batching.ports import Clock

#: For the poll thread to do what came during a step. It takes the interpreter lock several times for each request, and
#: next to a thread that keeps the lock busy waits about as long each time.
_PAUSE_S = 0.002

#: After a batch, for how long others are expected.
_SERVING_S = 1.0


class RequestsFirst:
    """Pauses of the threads that load and unload, while batches are being run in ``cores`` or have just been.

    At other times a pause takes microseconds, so that the models of a start are loaded at full speed. Any thread may
    call; what several note at the same time differs by nothing that matters.
    """

    def __init__(self, cores: IdleCores, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._cores = cores
        self._clock = clock
        self._sleep = sleep
        self._begun = 0
        self._serving_until = 0.0

    def pause(self) -> None:
        """Pause, if requests are likely to come meanwhile. To be called after each millisecond of work or so."""
        begun, now = self._cores.begun, self._clock()
        if begun != self._begun:
            self._begun = begun
            self._serving_until = now + _SERVING_S
        if now < self._serving_until:
            self._sleep(_PAUSE_S)
