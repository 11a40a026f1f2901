"""Bisection of a failed batch, so that only requests that fail by themselves fail. Pure."""

import math
from collections import deque
from collections.abc import Sequence

from inferd.batching.request import InferenceRequest

#: Failures of groups that are tolerated, per binary logarithm of the batch size. Finding one failing request takes the
#: logarithm, several spread ones more; in a batch in which every request fails, each failed group is wasted work.
_FAILURES = 1.5


class Bisection:
    """Halves failing groups, the largest first, so that most other requests are answered early.

    Invariant: each request gets its outcome from one run, that of a successful group or its own. Besides those and the
    run of the whole batch, at most ``1.5 log2 n`` groups of n requests fail: after that many failures every remaining
    request runs alone.
    """

    def __init__(self, requests: Sequence[InferenceRequest]) -> None:
        self._failures_left = math.ceil(_FAILURES * math.log2(len(requests))) - 1
        self._groups: deque[Sequence[InferenceRequest]] = deque()
        self._halve(requests)

    def next(self) -> Sequence[InferenceRequest] | None:
        """Return the next group to run; None when none is left."""
        if not self._groups:
            return None
        group = self._groups.popleft()
        if len(group) > 1 and self._failures_left <= 0:
            self._groups.extendleft([request] for request in reversed(group[1:]))
            return group[:1]
        return group

    def failed(self, group: Sequence[InferenceRequest]) -> None:
        """Record that ``group``, of several requests, failed."""
        self._failures_left -= 1
        self._halve(group)

    def _halve(self, group: Sequence[InferenceRequest]) -> None:
        middle = len(group) // 2
        self._groups += (group[:middle], group[middle:])
