"""A plain queue before the same executor: requests run in order of arrival."""

import random
from collections import deque

from benchmarks.simulation.calls import Call, End, Ended
from benchmarks.simulation.costs import Cost
from benchmarks.simulation.loop import Cores, Loop


class Fifo:
    """Batches what waits, the oldest first; full at ``bound_rows``, if given.

    Knows no deadlines, or with ``drops_expired`` drops what has expired when its turn comes, as Triton does with a
    queue policy of ``timeout_action: REJECT`` and a timeout in each request.
    """

    def __init__(
        self,
        loop: Loop,
        cost: Cost,
        *,
        max_rows: int,
        bound_rows: int | None = None,
        drops_expired: bool = False,
        seed: int = 0,
    ) -> None:
        self.loop = loop
        self.cost = cost
        self.max_rows = max_rows
        self._bound_rows = bound_rows
        self._drops_expired = drops_expired
        self._chance = random.Random(f"{seed} m")
        self._cores = Cores(loop, 1)
        self._waiting: deque[tuple[Call, Ended]] = deque()
        self._rows = 0
        self._busy = False

    def submit(self, call: Call, ended: Ended) -> None:
        """Implement `Server`."""
        if self._bound_rows is not None and self._rows + call.rows > self._bound_rows:
            ended(call, End.REFUSED, None)
            return
        call.admitted_at = self.loop.now
        self._waiting.append((call, ended))
        self._rows += call.rows
        if not self._busy:
            self._busy = True
            self.loop.when_idle(self._run)

    def cancel(self, call: Call) -> None:
        """Implement `Server`: it runs all the same."""

    def _run(self) -> None:
        batch: list[tuple[Call, Ended]] = []
        rows = 0
        while self._waiting and (not batch or rows + self._waiting[0][0].rows <= self.max_rows):
            call, ended = self._waiting.popleft()
            self._rows -= call.rows
            if self._drops_expired and call.deadline <= self.loop.now:
                ended(call, End.EXPIRED, None)
            else:
                batch.append((call, ended))
                rows += call.rows
        self._busy = bool(batch)
        if not batch:
            return
        run = self.cost.draw(rows, self._chance)

        def done() -> None:
            for call, ended in batch:
                if call.end is End.OPEN:
                    ended(call, End.OK, None)
            self._run()

        self._cores.start(run.work_s, done, stalled_s=run.stalled_s)
