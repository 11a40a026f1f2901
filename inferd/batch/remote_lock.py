"""A lock in remote storage: an object that its holder writes again every few seconds.

One that has not changed for a while was left by a process that was killed, and is taken over: by the waiting time of
the one who takes it, as clocks differ. Its holder, if it was only asleep, sees that it has lost the lock before it
completes anything.
"""

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from inferd.batch.errors import BatchError, InUseError
from inferd.batch.storage import shown
from inferd.periodic_thread import PeriodicThread

if TYPE_CHECKING:
    from inferd.batch.remote_folder import RemoteFolder

_log = logging.getLogger(__name__)

#: How often a lock is written again, and after which time without that it is taken over. The last one is for others
#: who take it over at the same time: they delete it just before they write it.
_RENEW_S, _STALE_S, _SETTLE_S = 5.0, 30.0, 2.0


class RemoteLock:
    """The lock ``name``. Threads: its holder's, and one that renews it."""

    def __init__(self, folder: "RemoteFolder", name: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._folder = folder
        self._name = name
        self._sleep = sleep
        self._holder = uuid.uuid4().hex
        self._beats = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Context in which this process alone has the lock. Raises `InUseError` if another one has it."""
        self._take()
        renewing = PeriodicThread("inferd-batch-lock", period_s=_RENEW_S, action=self.renew)
        renewing.start()
        try:
            yield
        finally:
            renewing.stop()
            # It is taken over in time.
            with suppress(BatchError):
                if self._is_own():
                    self._folder.delete([self._name])

    def require(self) -> None:
        """Raise `BatchError` if another process has taken the lock over."""
        if not self._is_own():
            raise InUseError(f"{shown(self._folder.address)} was taken over by another run of inferd batch")

    def renew(self) -> None:
        """Show that its holder is there."""
        try:
            if self._is_own():
                self._folder.write(self._name, self._beat())
        except BatchError as error:
            # It is tried again; before anything is completed, the lock has to be seen.
            _log.warning("cannot renew the lock: %s", error)

    def _take(self) -> None:
        if self._folder.create_new(self._name, self._beat()):
            return
        if not held(self._folder, [self._name], self._sleep) and self._folder.create_new(self._name, self._beat()):
            self._sleep(_SETTLE_S)
            if self._is_own():
                return
        raise InUseError(f"{shown(self._folder.address)} is in use by another run of inferd batch")

    def _is_own(self) -> bool:
        content = self._folder.read(self._name)
        return content is not None and content.startswith(self._holder.encode())

    def _beat(self) -> bytes:
        self._beats += 1
        return f"{self._holder} {self._beats}".encode()


def held(folder: "RemoteFolder", names: Iterable[str], sleep: Callable[[float], None] = time.sleep) -> list[str]:
    """Return those of the locks ``names`` that are renewed. The others are deleted."""
    before = {name: content for name in names if (content := folder.read(name)) is not None}
    if not before:
        return []
    _log.warning("%s: waiting %.0f s for a sign of another run", shown(folder.address), _STALE_S)
    sleep(_STALE_S)
    now = {name: folder.read(name) for name in before}
    folder.delete([name for name in before if now[name] == before[name]])
    return [name for name in before if now[name] not in (before[name], None)]
