"""Calls that have come and were not looked at yet, while more come than can be. Pure; on the poll thread only."""

from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class _Waiting(NamedTuple, Generic[Item]):
    arrived_at: float
    deadline: float
    item: Item


class UnreadCalls(Generic[Item]):
    """Holds calls for ``max_wait_s``; the latest ones of each connection, in turn, are taken first.

    While more calls come than can be handled, those that are handled in order of arrival have all waited as long as
    their callers wait at most. The latest ones are answered in time, and the others rejected. Times are monotonic.
    """

    def __init__(self, max_wait_s: float) -> None:
        self._max_wait_s = max_wait_s
        #: The calls of each connection, the oldest first; the connection whose turn is next comes first.
        self._waiting: dict[bytes, deque[_Waiting[Item]]] = {}
        self.count = 0

    def add(self, peer: bytes, item: Item, now: float, deadline: float) -> None:
        """Add a call that has come from ``peer`` at ``now``."""
        waiting = self._waiting.get(peer)
        if waiting is None:
            waiting = self._waiting[peer] = deque()
        waiting.append(_Waiting(now, deadline, item))
        self.count += 1

    def take(self, most: int) -> Iterator[Item]:
        """Take at most this many calls: all in order of arrival for each connection, or the latest ones."""
        takes_all = self.count <= most
        for _ in range(min(most, self.count)):
            peer = next(iter(self._waiting))
            yield self._take_turn(peer, latest=not takes_all)

    def take_late(self, now: float) -> Iterator[Item]:
        """Take calls that have waited for too long, as many as are asked for, the oldest of each connection in turn."""
        arrived_by = now - self._max_wait_s
        late = list(self._waiting)
        while late:
            late = [peer for peer in late if peer in self._waiting and self._waiting[peer][0].arrived_at <= arrived_by]
            for peer in late:
                yield self._take_turn(peer)

    def take_expired(self, now: float) -> Iterator[Item]:
        """Take calls whose deadline has passed, as far as no other one of their connection is older."""
        for peer in list(self._waiting):
            while peer in self._waiting and self._waiting[peer][0].deadline <= now:
                yield self._take_turn(peer)

    def _take_turn(self, peer: bytes, *, latest: bool = False) -> Item:
        """Take the oldest call of ``peer``, or the latest one; the next turn comes after those of the others."""
        waiting = self._waiting.pop(peer)
        taken = waiting.pop() if latest else waiting.popleft()
        self.count -= 1
        if waiting:
            self._waiting[peer] = waiting
        return taken.item
