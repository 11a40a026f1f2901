"""What is idle in a process with several models: scavengers of one must not slow the other requests of another.

The operating system shares the processors among the runs of models that compete for them
(docs/decisions/batching-models-share-cores.md). A batch of scavengers only starts while no other model runs anything
else.
"""

import threading
from collections.abc import Callable


class CoreShare:
    """One model's part in `IdleCores`.

    ``begun`` and ``ended`` count its batches that are not of scavengers. They are changed with the lock of the model's
    queue held, and read by others without. ``wake`` is called without locks when scavengers that had to wait may ask
    again.
    """

    __slots__ = ("_seen", "begun", "ended", "pool", "wake")

    def __init__(self, cores: "IdleCores") -> None:
        self.pool = cores
        self._seen = 0
        self.begun = 0
        self.ended = 0
        self.wake: Callable[[], None] = _nobody

    def may_scavenge(self) -> bool:
        """Whether scavengers may run now; if not, ``wake`` is called when it is worth asking again."""
        return self.pool.may_scavenge(self)

    def others_ran(self) -> bool:
        """Whether other models have run anything but scavengers since the last call."""
        before, self._seen = self._seen, self.pool.begun_by_others(self)
        return self._seen != before

    def wake_others(self) -> None:
        """Let scavengers of other models ask again, unless a run of this one is in their way.

        Called after a run has ended, without locks, if somebody waits.
        """
        if self.begun == self.ended:
            self.pool.wake_waiting()

    def close(self) -> None:
        """Leave: the model is unloaded."""
        self.pool.close(self)


class IdleCores:
    """The models of a process, and those that wait to run scavengers.

    Invariant: while a share waits, another one has a run in progress, and the thread that ends it calls `wake_waiting`.
    Any thread may call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: tuple[CoreShare, ...] = ()
        #: The models that wait to run scavengers.
        self.waiting: tuple[CoreShare, ...] = ()

    @property
    def begun(self) -> int:
        """How many batches the present models have begun that were not of scavengers."""
        return sum(share.begun for share in self._shares)

    def register(self) -> CoreShare:
        """Add a model."""
        share = CoreShare(self)
        with self._lock:
            self._shares = (*self._shares, share)
        return share

    def close(self, share: CoreShare) -> None:
        """Remove a model."""
        with self._lock:
            self._shares = tuple(other for other in self._shares if other is not share)
            self.waiting = tuple(other for other in self.waiting if other is not share)
        self.wake_waiting()

    def may_scavenge(self, share: CoreShare) -> bool:
        """Whether no other model has an online run in progress; otherwise remember to wake ``share``."""
        if not self._others_run(share):
            return True
        with self._lock:
            if share not in self.waiting:
                self.waiting = (*self.waiting, share)
        # The last run may have ended before it was to be seen that somebody waits for that.
        return not self._others_run(share)

    def begun_by_others(self, share: CoreShare) -> int:
        """Return how many batches other models have begun that were not of scavengers."""
        return sum(other.begun for other in self._shares if other is not share)

    def wake_waiting(self) -> None:
        """Let all that wait ask again."""
        with self._lock:
            waiting, self.waiting = self.waiting, ()
        for share in waiting:
            share.wake()

    def _others_run(self, share: CoreShare) -> bool:
        return any(other.begun != other.ended for other in self._shares if other is not share)


def _nobody() -> None:
    pass
