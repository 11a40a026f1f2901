"""The thread-safe side of the waiting queue: requests come from the poll thread and start on the engine's."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.batching.ports import Clock, PollThread, weak_callback
from inferd.batching.queued import QueueEffects
from inferd.errors import ServingError
from inferd.generation.finish_reasons import CANCELLED, ERROR, count_rejected, count_unstarted
from inferd.generation.forecast import CacheLoad, GenerationForecast
from inferd.generation.outbox import Outbox
from inferd.generation.request import GenerationRequest
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.waiting_queue import Effects, WaitingQueue
from inferd.observability.metrics.generation import GenerationStats
from inferd.observability.metrics.run_cost import RunCost


@dataclass(frozen=True, slots=True)
class EndedSequence:
    """A sequence that has ended; ``reason`` is one of the `FINISH_REASONS`."""

    sequence: GeneratingSequence
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What the engine has done since its last report, and the present load of the cache.

    ``chunk`` is the number of tokens of a prefill run, ``step`` the number of sequences of a decode step; both with the
    seconds from the beginning of the run until its output was posted.
    """

    load: CacheLoad
    chunk: tuple[int, float] | None = None
    step: tuple[int, float] | None = None
    ended: Sequence[EndedSequence] = ()


class Intake:
    """Admits requests, and hands them to the engine when they may start.

    Invariants: one lock guards the queue, the forecast and the started sequences; it is not held while receivers are
    called, timers are armed, or a model runs. The load of the cache is that of the engine's last report.

    | called by | methods |
    |---|---|
    | the poll thread | ``submit``, ``cancel``, and timers |
    | the engine's thread | ``start_next``, ``wait_for_requests`` (blocks) |
    | any thread | ``close``, ``abandon``, ``set_unavailable``, ``step_cost`` |
    """

    def __init__(
        self,
        *,
        queue: WaitingQueue,
        forecast: GenerationForecast,
        load: CacheLoad,
        outbox: Outbox,
        clock: Clock,
        poll_thread: PollThread,
        stats: GenerationStats,
    ) -> None:
        self.queue = queue
        self._forecast = forecast
        self._load = load
        self._outbox = outbox
        self._clock = clock
        self._poll_thread = poll_thread
        self._stats = stats
        self._work = threading.Condition()
        self._started: dict[GenerationRequest, GeneratingSequence] = {}

    def submit(self, request: GenerationRequest) -> None:
        """Admit or reject ``request``."""
        effects: Effects = QueueEffects()
        with self._work:
            self.queue.offer(request, self._load, self._clock(), effects)
            self._work.notify()
        self._apply_on_poll_thread(effects)

    def cancel(self, request: GenerationRequest) -> None:
        """Remove ``request``, which has not ended: from the queue now, or from the cache before the next run."""
        effects: Effects = QueueEffects()
        with self._work:
            now = self._clock()
            is_unstarted = self.queue.remove(request, now, effects)
            sequence = self._started.get(request)
            if sequence is not None and not sequence.removal_reason:
                sequence.removal_reason = CANCELLED
        if is_unstarted:
            count_unstarted(self._stats, request, CANCELLED, now)
        self._apply_on_poll_thread(effects)

    def start_next(
        self, progress: Progress, may_start: Callable[[GenerationRequest], bool] | None
    ) -> GeneratingSequence | None:
        """Record ``progress``, and start the request that is next if it ``may_start``; return its sequence.

        Without ``may_start``, no request starts.
        """
        effects: Effects = QueueEffects()
        with self._work:
            now = self._clock()
            self._learn(progress, now)
            self.queue.update_load(progress.load, now, effects)
            sequence = self._start(may_start, now, effects) if may_start is not None else None
        self._apply(effects)
        return sequence

    def _start(
        self, may_start: Callable[[GenerationRequest], bool], now: float, effects: Effects
    ) -> GeneratingSequence | None:
        request = self.queue.next_request(now, effects)
        if request is None or not may_start(request):
            return None
        self.queue.start(request, now, effects)
        sequence = self._started[request] = GeneratingSequence(request, now)
        return sequence

    def wait_for_requests(self) -> bool:
        """Block until requests wait; return False when none will come any more."""
        with self._work:
            self._work.wait_for(lambda: self.queue.count or self.queue.closed)
            return not self.queue.exhausted

    def step_cost(self, most: int) -> RunCost | None:
        """Return the predicted times of steps of up to ``most`` sequences; None while nothing is known."""
        with self._work:
            return self._forecast.times.step_cost(most)

    def close(self) -> None:
        """Reject new requests; waiting ones still start."""
        with self._work:
            self.queue.closed = True
            self._work.notify()

    def set_unavailable(self, error: Callable[[], ServingError] | None) -> None:
        """Fail all requests, and reject new ones, with what ``error`` returns; None admits requests again."""
        with self._work:
            self.queue.unavailable = error
        if error is not None:
            self.abandon(error())

    def abandon(self, error: ServingError) -> None:
        """Fail all requests that have not ended, with ``error``."""
        effects: Effects = QueueEffects()
        with self._work:
            self.queue.fail_all(error, effects)
            for sequence in self._started.values():
                sequence.removal_reason = sequence.removal_reason or ERROR
            self._work.notify()
        self._apply(effects)
        self._outbox.post_to_all(error)

    def _learn(self, progress: Progress, now: float) -> None:
        self._load = progress.load
        if progress.chunk is not None:
            self._forecast.times.chunk_ran(*progress.chunk, now)
        if progress.step is not None:
            self._forecast.times.step_ran(*progress.step, now)
        for ended in progress.ended:
            request, reason = ended.sequence.request, ended.reason
            self._started.pop(request, None)
            self._forecast.learn(request, ended.sequence.generated, reason, now)

    def _apply(self, effects: Effects) -> None:
        """Carry out ``effects``, in any thread."""
        self._count_and_arm(effects)
        self._outbox.post(effects.failed)

    def _apply_on_poll_thread(self, effects: Effects) -> None:
        """Carry out ``effects``, on the poll thread."""
        self._count_and_arm(effects)
        self._outbox.deliver(effects.failed)

    def _count_and_arm(self, effects: Effects) -> None:
        now = self._clock()
        for request, error in effects.failed:
            count_rejected(self._stats, request, error, now)
        for when in effects.timers_at:
            self._poll_thread.call_at(when, weak_callback(self._expire))

    def _expire(self) -> None:
        effects: Effects = QueueEffects()
        with self._work:
            self.queue.expire(self._clock(), effects)
        self._apply_on_poll_thread(effects)
