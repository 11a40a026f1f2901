"""Idle cores for scavengers, in a process with several models.

The operating system shares the cores among the runs of all models (docs/decisions/batching-models-share-cores.md), so
scavengers of one model would slow the regular requests of another. A batch of scavengers starts only while no other
model has a regular batch in progress, which is one that is not of scavengers.
"""

import threading
from collections.abc import Callable


class CoreShare:
    """One model in `IdleCores`.

    ``begun`` and ``ended`` count its regular batches; they change under the lock of the model's queue, and others read
    them without it. ``wake`` is called without locks when scavengers that were denied may ask again.
    """

    __slots__ = ("_seen", "begun", "ended", "pool", "wake")

    def __init__(self, cores: "IdleCores") -> None:
        self.pool = cores
        self._seen = 0
        self.begun = 0
        self.ended = 0
        self.wake: Callable[[], None] = _do_nothing

    def may_scavenge(self) -> bool:
        """Return whether scavengers may run now; if not, ``wake`` is called when they should ask again."""
        return self.pool.may_scavenge(self)

    def others_ran(self) -> bool:
        """Return whether other models have begun a regular batch since the last call."""
        before, self._seen = self._seen, self.pool.begun_by_others(self)
        return self._seen != before

    def wake_others(self) -> None:
        """Wake the scavengers of other models, unless this one has another regular batch in progress.

        Called without locks after a run has ended, if any model waits.
        """
        if self.begun == self.ended:
            self.pool.wake_waiting()

    def close(self) -> None:
        """Remove the model, which is unloaded."""
        self.pool.close(self)


class IdleCores:
    """The models of a process, and those that wait to run scavengers. Any thread may call.

    Invariant: while a model waits, another one has a regular batch in progress, and the thread that ends it calls
    `wake_waiting`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shares: tuple[CoreShare, ...] = ()
        #: The models that wait to run scavengers.
        self.waiting: tuple[CoreShare, ...] = ()

    @property
    def begun(self) -> int:
        """The number of regular batches that the present models have begun."""
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
        """Return whether no other model has a regular batch in progress; if one has, remember to wake ``share``."""
        if not self._others_run(share):
            return True
        with self._lock:
            if share not in self.waiting:
                self.waiting = (*self.waiting, share)
        # The last batch may have ended before its thread could see ``share`` in ``waiting``: nothing would wake it.
        return not self._others_run(share)

    def begun_by_others(self, share: CoreShare) -> int:
        """Return the number of regular batches that other models have begun."""
        return sum(other.begun for other in self._shares if other is not share)

    def wake_waiting(self) -> None:
        """Wake the scavengers of all models that wait."""
        with self._lock:
            waiting, self.waiting = self.waiting, ()
        for share in waiting:
            share.wake()

    def _others_run(self, share: CoreShare) -> bool:
        return any(other.begun != other.ended for other in self._shares if other is not share)


def _do_nothing() -> None:
    pass
