"""Which requests of a batch that failed run together next, so that only those fail that do so by themselves. Pure."""

import math
from collections import deque
from collections.abc import Sequence

from inferd.batching.request import InferenceRequest

#: So many groups may fail, times the logarithm of their number. One culprit takes the logarithm to be found, several
#: that are spread take more, and of a batch that fails throughout each failure of a group has been in vain.
_FAILURES = 1.5


class CulpritSearch:
    """Halves what fails, the largest groups first, so that most of the others have their answers soon.

    Invariant: each request's outcome comes from one run, that of a group that succeeds or its own, and besides those
    and the run of the whole batch at most ``1.5 log2 n`` groups of n requests fail, whichever fail: after as many
    failures every request runs alone.
    """

    def __init__(self, requests: Sequence[InferenceRequest]) -> None:
        self._failures_left = math.ceil(_FAILURES * math.log2(len(requests))) - 1
        self._groups: deque[Sequence[InferenceRequest]] = deque()
        self._halve(requests)

    def next(self) -> Sequence[InferenceRequest] | None:
        """Return the group that runs next; None when there is none left."""
        if not self._groups:
            return None
        group = self._groups.popleft()
        if len(group) > 1 and self._failures_left <= 0:
            self._groups.extendleft([request] for request in reversed(group[1:]))
            return group[:1]
        return group

    def failed(self, group: Sequence[InferenceRequest]) -> None:
        """The ``group``, of several, failed."""
        self._failures_left -= 1
        self._halve(group)

    def _halve(self, group: Sequence[InferenceRequest]) -> None:
        middle = len(group) // 2
        self._groups += (group[:middle], group[middle:])
