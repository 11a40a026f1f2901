"""An event loop on a virtual clock, and processors that it shares among runs."""

import heapq
import math
from collections.abc import Callable
from itertools import count

_START_S = 100.0
_DONE = 1e-12


class Loop:
    """Calls back in order of time; callbacks of `when_idle` come after all others of the same time."""

    def __init__(self) -> None:
        self.now = _START_S
        self._order = count()
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Call back at ``when``, or now if that has passed."""
        heapq.heappush(self._events, (max(when, self.now), 0, next(self._order), callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back in ``seconds``."""
        self.at(self.now + seconds, callback)

    def when_idle(self, callback: Callable[[], None]) -> None:
        """Call back when everything else of this time is done."""
        heapq.heappush(self._events, (self.now, 1, next(self._order), callback))

    def run(self, seconds: float = math.inf) -> None:
        """Let ``seconds`` pass, or as long as there is anything to do."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, _, callback = heapq.heappop(self._events)
            callback()
        if end < math.inf:
            self.now = end


class Task:
    """A run on the processors: what is left of its work, in seconds with all the threads that it wants."""

    __slots__ = ("done", "left_s", "stalled_s", "threads")

    def __init__(self, work_s: float, threads: int, stalled_s: float, done: Callable[[], None]) -> None:
        self.left_s = work_s
        self.threads = threads
        self.stalled_s = stalled_s
        self.done = done


class Cores:
    """Processors that an operating system shares evenly among the threads of the tasks that run.

    A task may be stalled after its work, which takes time and no processor.
    """

    def __init__(self, loop: Loop, count: int) -> None:
        self.count = count
        self._loop = loop
        self._tasks: list[Task] = []
        self._at = loop.now
        self._turn = 0

    def start(self, work_s: float, done: Callable[[], None], *, threads: int = 1, stalled_s: float = 0.0) -> Task:
        """Run a task of ``work_s``; it calls ``done`` when it has ended."""
        self._advance()
        task = Task(work_s, threads, stalled_s, done)
        self._tasks.append(task)
        self._arm()
        return task

    def stop(self, task: Task) -> None:
        """End ``task`` early, without a call of ``done``."""
        self._advance()
        if task in self._tasks:
            self._tasks.remove(task)
        task.done = _nothing
        self._arm()

    @property
    def _speed(self) -> float:
        return min(1.0, self.count / sum(task.threads for task in self._tasks))

    def _advance(self) -> None:
        passed = self._loop.now - self._at
        self._at = self._loop.now
        if passed and self._tasks:
            worked = passed * self._speed
            for task in self._tasks:
                task.left_s -= worked

    def _arm(self) -> None:
        self._turn += 1
        if self._tasks:
            turn = self._turn
            first = min(task.left_s for task in self._tasks)
            self._loop.at(self._loop.now + max(first, 0.0) / self._speed, lambda: self._look(turn))

    def _look(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._advance()
        least = min(task.left_s for task in self._tasks)
        ended = [task for task in self._tasks if task.left_s <= max(least, _DONE)]
        self._tasks = [task for task in self._tasks if task not in ended]
        self._arm()
        for task in ended:
            if task.stalled_s:
                self._loop.after(task.stalled_s, lambda task=task: task.done())  # type: ignore[misc]  # its default
            else:
                task.done()


def _nothing() -> None:
    pass
