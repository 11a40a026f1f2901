"""Start-time fair queueing between the principals of one priority, earliest deadline first for each of them. Pure.

Each principal has a *flow*. The flow with the least cost served so far, divided by its weight, is next; a flow that was
idle gets no credit for that.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from typing import Generic

from inferd.batching.queued import Queued

#: The most principals without a waiting request that are remembered as having been served more than others.
_IDLE_FLOWS = 256
#: Up to this many principals with waiting requests, what each has is counted to estimate a wait; beyond, their sum.
_COUNTED_FLOWS = 64

_Entry = tuple[tuple[float, int], Queued]


class Flow(Generic[Queued]):
    """The waiting requests of one principal at one priority, by deadline, then in order of arrival.

    ``tag`` is its virtual time: the cost served so far, divided by ``weight``.
    """

    __slots__ = ("_entries", "_head", "rows", "tag", "weight")

    def __init__(self, weight: float, tag: float) -> None:
        self.weight = weight
        self.tag = tag
        self.rows = 0
        # Entries before the head have been taken; removing the first of a long list would move all others.
        self._entries: list[_Entry[Queued] | None] = []
        self._head = 0

    def __len__(self) -> int:
        return len(self._entries) - self._head

    def __iter__(self) -> Iterator[Queued]:
        entries = self._entries
        for at in range(self._head, len(entries)):
            yield entries[at][1]  # type: ignore[index]  # only entries before the head are None

    def add(self, request: Queued) -> None:
        """Add ``request`` at the place of its ``edf_key``."""
        entries = self._entries
        entry = (request.edf_key, request)
        if not entries or entries[-1] < entry:  # type: ignore[operator]  # the last one is never None
            entries.append(entry)
        else:
            insort(entries, entry, lo=self._head)  # type: ignore[type-var]
        self.rows += request.rows

    def first(self) -> Queued:
        """Return the first request; there must be one."""
        return self._entries[self._head][1]  # type: ignore[index]  # only entries before the head are None

    def remove(self, request: Queued) -> bool:
        """Remove ``request``; False if it is not here."""
        entries, head = self._entries, self._head
        if head < len(entries) and entries[head][1] is request:  # type: ignore[index]
            self._advance(head + 1)
        else:
            at = self._place(*request.edf_key)
            if at == len(entries) or entries[at][1] is not request:  # type: ignore[index]
                return False
            del entries[at]
        self.rows -= request.rows
        return True

    def take_first(self, requests: Sequence[Queued], rows: int) -> bool:
        """Remove ``requests`` of ``rows`` in all if they are the first ones in this order; else return False."""
        entries, head = self._entries, self._head
        end = head + len(requests)
        if end > len(entries):
            return False
        for at, request in enumerate(requests, head):
            if entries[at][1] is not request:  # type: ignore[index]
                return False
        self._advance(end)
        self.rows -= rows
        return True

    def _advance(self, end: int) -> None:
        """Drop the entries from the head to ``end``; move the others only when they are no more than those before."""
        entries, head = self._entries, self._head
        if 2 * end >= len(entries):
            del entries[:end]
            self._head = 0
        else:
            entries[head:end] = [None] * (end - head)
            self._head = end

    def rows_before(self, due: float) -> int:
        """Estimate how many rows are due no later than ``due``, taking all requests to be of the same size."""
        last = self._entries[-1]
        if last is None or last[0][0] <= due:
            return self.rows
        return self.rows * (self._place(due, math.inf) - self._head) // len(self)

    def behind(self, due: float, most: int) -> Iterator[tuple[int, Queued]]:
        """Yield up to ``most`` evenly spaced requests that are due after ``due``, with the rows up to each."""
        entries, first = self._entries, self._place(due, math.inf)
        # The step is rounded up.
        for at in range(first, len(entries), max(1, -((first - len(entries)) // most))):
            yield self.rows * (at - self._head + 1) // len(self), entries[at][1]  # type: ignore[index]

    def _place(self, due: float, number: float) -> int:
        return bisect_left(self._entries, ((due, number),), lo=self._head)  # type: ignore[type-var]


class Level(Generic[Queued]):
    """The flows of one priority.

    ``credit`` is that of ageing, in rows. ``_virtual`` is the tag of the flow that was served last.
    """

    __slots__ = ("_idle_tags", "_virtual", "_weights", "credit", "flows", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self.credit = 0.0
        self.flows: dict[str, Flow[Queued]] = {}
        self._weights = 0.0
        self._virtual = 0.0
        # Tags of principals that were served more than others and have nothing waiting at present.
        self._idle_tags: dict[str, float] = {}

    def add(self, request: Queued) -> None:
        """Add ``request`` to the flow of its principal."""
        name, weight = request.principal
        flow = self.flows.get(name)
        if flow is None:
            tag = max(self._idle_tags.pop(name, 0.0), self._virtual)
            flow = self.flows[name] = Flow(weight, tag)
            self._weights += flow.weight
        flow.add(request)
        self.rows += request.rows

    def remove(self, request: Queued, cost_s: float = 0.0) -> bool:
        """Remove ``request`` and charge its flow ``cost_s``; False if it is not here."""
        flow = self.flows.get(request.principal.name)
        if flow is None or not flow.remove(request):
            return False
        self._removed(request.principal.name, flow, request.rows, cost_s)
        return True

    def take_first(self, requests: Sequence[Queued], rows: int, cost_s: float) -> bool:
        """Remove and charge ``requests`` of ``rows`` in all if they are the first ones of a single flow."""
        if len(self.flows) != 1:
            return False
        principal, flow = next(iter(self.flows.items()))
        if not flow.take_first(requests, rows):
            return False
        self._removed(principal, flow, rows, cost_s)
        return True

    def _removed(self, principal: str, flow: Flow[Queued], rows: int, cost_s: float) -> None:
        self.rows -= rows
        if cost_s:
            self._virtual = max(self._virtual, flow.tag)
            flow.tag += cost_s / flow.weight
        if not flow.rows:
            self._end(principal, flow)

    def _end(self, principal: str, flow: Flow[Queued]) -> None:
        del self.flows[principal]
        self._weights -= flow.weight
        if not self.flows:
            # No flow competes: the next one starts with no cost served.
            self._idle_tags.clear()
            self._virtual = self._weights = self.credit = 0.0
            return
        if flow.tag > self._virtual:
            self._idle_tags[principal] = flow.tag
        if len(self._idle_tags) > _IDLE_FLOWS:
            self._forget_idle()

    def _forget_idle(self) -> None:
        """Forget idle principals that were served no more than others, and in any case half of them."""
        tags = sorted(tag for tag in self._idle_tags.values() if tag > self._virtual)
        if len(tags) > _IDLE_FLOWS // 2:
            # Virtual time has to advance: a sequence of ever new principals would overtake those that wait.
            self._virtual = tags[len(tags) // 2]
        self._idle_tags = {name: tag for name, tag in self._idle_tags.items() if tag > self._virtual}

    def in_order(self, row_s: float) -> Iterator[Queued]:
        """Iterate in order of service, with ``row_s`` as the expected cost of a row."""
        if len(self.flows) == 1:
            return iter(next(iter(self.flows.values())))
        return self._interleaved([flow.tag for flow in self.flows.values()], row_s)

    def victims(self) -> Iterator[Queued]:
        """Iterate in order of eviction: from the flow with the most rows for its weight, what is due first."""
        return self._interleaved([-flow.rows / flow.weight for flow in self.flows.values()], 1.0)

    def _interleaved(self, starts: Iterable[float], row_step: float) -> Iterator[Queued]:
        """Take the next request of the flow with the least value.

        Values begin at ``starts``, in the order of the flows, and grow by ``row_step`` a row, divided by the weight.
        """
        flows = zip(starts, self.flows.values(), strict=True)
        heads = [(start, number, iter(flow), flow) for number, (start, flow) in enumerate(flows)]
        heapify(heads)
        while heads:
            value, number, requests, flow = heads[0]
            request = next(requests, None)
            if request is None:
                heappop(heads)
                continue
            heapreplace(heads, (value + request.rows * row_step / flow.weight, number, requests, flow))
            yield request

    def rows_ahead(self, principal: str, weight: float, due: float, rows: int) -> int:
        """Estimate how many rows would be served before the end of a request of ``rows``, without its own."""
        flow = self.flows.get(principal)
        own = flow.rows_before(due) if flow is not None else 0
        # Virtual time from now to its end.
        finish = (own + rows) / weight
        if len(self.flows) <= _COUNTED_FLOWS:
            others = (other for other in self.flows.values() if other is not flow)
            return own + sum(min(other.rows, int(finish * other.weight)) for other in others)
        others_rows, others_weights = self.rows, self._weights
        if flow is not None:
            others_rows, others_weights = others_rows - flow.rows, others_weights - flow.weight
        return own + min(others_rows, int(finish * others_weights))
