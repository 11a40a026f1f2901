"""The worker threads of a model version, and replacements for those that hang in a run.

The caller_runs policy has threads of its own: callers share the rpc poll thread, which must not run a model.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

from inferd.batching.execution import Executor
from inferd.batching.ports import Clock
from inferd.batching.queue import RequestQueue
from inferd.batching.request import Batch
from inferd.runtime.resources import give_way

_logger = logging.getLogger("inferd.batching")

#: Limit of stuck threads of a model version that are replaced, or the number of its posts, if that is higher. Each
#: holds one or more cores and the memory of its run until its operator returns.
_MAX_STUCK = 4


class BatchSource(Protocol):
    """A source of batches for a worker."""

    def take(self, finished: Batch | None) -> Batch | None:
        """Hand back the ``finished`` batch and wait for the next one; None when there will be no more."""
        ...


@dataclass(frozen=True, slots=True)
class Post:
    """The task of a worker thread: its name, and where its batches come from."""

    name: str
    source: BatchSource


class Worker:
    """A thread that takes and runs batches until its source ends or it has been replaced.

    Invariant: it survives until then, because neither the executor nor the source raises anything. It is a daemon
    thread: a run that never ends must not keep the process alive. ``batch`` is the one it runs.
    """

    def __init__(self, post: Post, executor: Executor, is_replaced: Callable[["Worker"], bool]) -> None:
        self.post = post
        self.batch: Batch | None = None
        self.has_started = False
        self._executor = executor
        self._is_replaced = is_replaced
        self._thread = threading.Thread(target=self._run, name=post.name, daemon=True)

    def start(self, first: Batch | None = None) -> None:
        """Start the thread; it runs ``first``, if given, and then takes batches. Raises `RuntimeError`."""
        self.batch = first
        self._thread.start()
        self.has_started = True

    @property
    def name(self) -> str:
        """The name of the thread."""
        return self.post.name

    @property
    def has_ended(self) -> bool:
        """True if the thread has run and ended."""
        return self.has_started and not self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended. Returns False on timeout."""
        if self.has_started:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        give_way()
        source = self.post.source
        batch = self.batch or source.take(None)
        while batch is not None:
            self.batch = batch
            self._executor.execute(batch)
            if self._is_replaced(self):
                return
            batch = source.take(batch)


class Startable(Protocol):
    """A thread that can be started once: a `Worker`, or that of a language model's engine."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def has_started(self) -> bool: ...  # noqa: D102
    def start(self) -> None: ...  # noqa: D102


class LazyStart:
    """Starts the ``workers`` of a model version with its first request, so that idle versions have no threads.

    `allow` is called once, `need` by the poll thread. ``on_vacancy`` is called with True when no thread can be
    started, and with False when one can be again.
    """

    def __init__(self, workers: Sequence[Startable], on_vacancy: Callable[[bool], None]) -> None:
        self._workers = workers
        self._on_vacancy = on_vacancy
        # Held while threads are started: a request may come just when they may be.
        self._lock = threading.Lock()
        self._is_allowed = False
        self._is_needed = False
        self._are_missing = False

    def allow(self) -> None:
        """Let the threads start as soon as there is a request."""
        self._is_allowed = True
        if self._is_needed:
            self.need()

    def need(self) -> bool:
        """Start the threads for an arriving request; return whether all of them have started.

        While none can be started, requests are rejected.
        """
        self._is_needed = True
        if not self._is_allowed:
            return False
        with self._lock:
            return self._start_missing()

    def _start_missing(self) -> bool:
        started = 0
        try:
            for worker in self._workers:
                if not worker.has_started:
                    worker.start()
                started += 1
        except RuntimeError:
            _logger.exception("a thread could not be started for %s", worker.name)
        if (started == 0) != self._are_missing:
            self._are_missing = started == 0
            self._on_vacancy(self._are_missing)
        return started == len(self._workers)


class Workers:
    """The threads of a model version.

    The first workers have the ``posts``; each further one, from `add`, the first of these and the ``spare`` posts that
    is free. A worker ends when its source has no more for it.

    Invariants: each post has a worker that is not known to be stuck, or is vacant, which it only is while more threads
    are stuck than may be, or the system gives no further one. A batch is handed back by the worker that took it, or is
    given up with it, never both.

    ``lazy_start`` starts the first workers. `replace` is called by one thread at a time, the others by any.
    ``hand_over`` gives up the batch of a stuck worker and returns what is left of it to be run; ``on_vacancy`` is
    called with whether posts are vacant; its last argument is current.
    """

    def __init__(
        self,
        *,
        executor: Executor,
        posts: Sequence[Post],
        spare: Sequence[Post] = (),
        hand_over: Callable[[Batch], Batch | None],
        on_vacancy: Callable[[bool], None],
        clock: Clock,
    ) -> None:
        self._executor = executor
        self._posts = (*posts, *spare)
        self._most_stuck = max(_MAX_STUCK, len(self._posts))
        self._hand_over = hand_over
        self._on_vacancy = on_vacancy
        self._clock = clock
        self._lock = threading.Lock()
        self._working = [self._worker(post) for post in posts]
        self._stuck: list[Worker] = []
        self._vacant: list[Post] = []
        self._vacancy_lock = threading.Lock()
        self.lazy_start = LazyStart(tuple(self._working), on_vacancy)

    @property
    def stuck(self) -> int:
        """Threads whose runs were given up and have not returned."""
        return len(self._stuck)

    def replace(self, batch: Batch) -> None:
        """Give up the worker that is stuck with ``batch``, and have another take its place if there may be one more.

        Nothing if it has come back after all, or if the batch is run by a thread that is none of these.
        """
        with self._lock:
            worker = next((each for each in self._working if each.batch is batch), None)
            if worker is None:
                return
            batch.given_up = True
            self._working.remove(worker)
            self._stuck.append(worker)
            is_vacant = len(self._stuck) > self._most_stuck
            if is_vacant:
                self._vacant.append(worker.post)
        _logger.error("a run hangs in one operator; its thread %s is abandoned", worker.post.name)
        if is_vacant:
            self._report_vacancy()
        rest = self._hand_over(batch)
        if not is_vacant:
            self._fill(worker.post, rest)

    def add(self) -> bool:
        """Start one more worker; False if the system gives no thread."""
        with self._lock:
            self._working = [worker for worker in self._working if not worker.has_ended]
            taken = {worker.post for worker in self._working}
            free = [post for post in self._posts if post not in taken and post not in self._vacant]
            # None is free if a worker is just about to end.
            worker = self._worker(free[0] if free else self._posts[-1])
            self._working.append(worker)
        return self._try_start(worker)

    def join(self, timeout_s: float) -> bool:
        """Wait until the sources have no more. Returns False if a thread is stuck, or took longer than the timeout."""
        ended_at = self._clock() + timeout_s
        joined: set[Worker] = set()
        # A worker may have started another one before it ended.
        while worker := self._next_of(joined):
            if not worker.join(max(0.0, ended_at - self._clock())):
                return False
            joined.add(worker)
        return not self._stuck

    def _next_of(self, joined: set[Worker]) -> Worker | None:
        with self._lock:
            return next((worker for worker in self._working if worker not in joined), None)

    def _worker(self, post: Post) -> Worker:
        return Worker(post, self._executor, self._is_replaced)

    def _fill(self, post: Post, first: Batch | None) -> None:
        worker = self._worker(post)
        with self._lock:
            self._working.append(worker)
        if self._try_start(worker, first):
            return
        with self._lock:
            self._vacant.append(post)
        self._report_vacancy()
        if first is not None:
            self._hand_over(first)

    def _try_start(self, worker: Worker, first: Batch | None = None) -> bool:
        try:
            worker.start(first)
        except RuntimeError:
            _logger.exception("no thread could be started for %s", worker.post.name)
            with self._lock:
                self._working.remove(worker)
            return False
        return True

    def _report_vacancy(self) -> None:
        # One call after the other, each with the state at that time.
        with self._vacancy_lock:
            self._on_vacancy(bool(self._vacant))

    def _is_replaced(self, worker: Worker) -> bool:
        """Record that ``worker`` has run its batch; return whether it is to end."""
        with self._lock:
            worker.batch = None
            if worker not in self._stuck:
                return False
            self._stuck.remove(worker)
            post = self._vacant.pop() if self._vacant else None
        _logger.info("the run that hung in thread %s has ended", worker.post.name)
        if post is not None:
            self._fill(post, None)
            self._report_vacancy()
        return True


class CallerRuns:
    """Runs batches outside the queue.

    Invariant: the handover holds at most one batch per thread, because the policy permits no more runs at a time. `run`
    is called by the submitting thread and does not block; `take` by the threads, one for each of the ``posts``.
    """

    def __init__(self, *, name: str, threads: int, queue: RequestQueue) -> None:
        self._queue = queue
        self._handover: SimpleQueue[Batch | None] = SimpleQueue()
        self.posts = [Post(f"{name}-{number}", self) for number in range(threads)]

    def run(self, batch: Batch) -> None:
        """Run ``batch`` immediately in one of the threads."""
        self._handover.put(batch)

    def take(self, finished: Batch | None) -> Batch | None:
        """Implement `BatchSource`."""
        if finished is not None:
            self._queue.retire(finished)
        return self._handover.get()

    def stop(self) -> None:
        """End each thread after its current run."""
        for _ in self.posts:
            self._handover.put(None)
