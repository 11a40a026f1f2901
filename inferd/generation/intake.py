"""The waiting line of an engine between the threads that fill it and the one that empties it."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.batching.ports import Clock, PollThread, weak_callback
from inferd.batching.queued import QueueEffects
from inferd.errors import ServingError
from inferd.generation.endings import CANCELLED, ERROR, count_refused, count_unstarted
from inferd.generation.forecast import GenerationForecast, Load
from inferd.generation.line import LineEffects, WaitingLine
from inferd.generation.outbox import Outbox
from inferd.generation.request import GenerationRequest
from inferd.generation.sequence import GeneratingSequence
from inferd.observability.metrics.generation import GenerationStats
from inferd.observability.metrics.run_cost import RunCost


@dataclass(frozen=True, slots=True)
class Ended:
    """A sequence that has ended, and why: one of the `FINISH_REASONS`."""

    sequence: GeneratingSequence
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What the engine has done since it last asked for a request.

    ``chunk`` and ``step`` are the tokens or sequences of a run, and the seconds that it took with all around it.
    """

    load: Load
    chunk: tuple[int, float] | None = None
    step: tuple[int, float] | None = None
    ended: Sequence[Ended] = ()


class Intake:
    """Admits requests, and hands them to the engine when they may start.

    Invariants: one lock guards the line, the forecast and the sequences that have started; it is not held while
    receivers are told, timers armed, or anything runs. ``load`` is that of the cache when the engine last said so.

    | called by | methods |
    |---|---|
    | the poll thread | ``submit``, ``cancel``, and timers |
    | the engine's thread | ``advance``, ``wait`` (blocks) |
    | any thread | ``close``, ``abandon``, ``set_obstacle``, ``step_cost`` |
    """

    def __init__(
        self,
        *,
        line: WaitingLine,
        forecast: GenerationForecast,
        load: Load,
        outbox: Outbox,
        clock: Clock,
        poll_thread: PollThread,
        stats: GenerationStats,
    ) -> None:
        self.line = line
        self._forecast = forecast
        self._load = load
        self._outbox = outbox
        self._clock = clock
        self._poll_thread = poll_thread
        self._stats = stats
        self._work = threading.Condition()
        self._started: dict[GenerationRequest, GeneratingSequence] = {}

    def submit(self, request: GenerationRequest) -> None:
        """Admit or refuse ``request``."""
        effects: LineEffects = QueueEffects()
        with self._work:
            self.line.offer(request, self._load, self._clock(), effects)
            self._work.notify()
        self._do_here(effects)

    def cancel(self, request: GenerationRequest) -> None:
        """Take ``request``, which has not ended, out of the line; or have the engine remove it before its next run."""
        effects: LineEffects = QueueEffects()
        with self._work:
            now = self._clock()
            is_unstarted = self.line.remove(request, now, effects)
            sequence = self._started.get(request)
            if sequence is not None and not sequence.removed_for:
                sequence.removed_for = CANCELLED
        if is_unstarted:
            count_unstarted(self._stats, request, CANCELLED, now)
        self._do_here(effects)

    def advance(
        self, progress: Progress, may_start: Callable[[GenerationRequest], bool] | None
    ) -> GeneratingSequence | None:
        """Take note of ``progress``; return the next request as a sequence, if there is one and it ``may_start``.

        Without ``may_start``, none may.
        """
        effects: LineEffects = QueueEffects()
        with self._work:
            now = self._clock()
            self._learn(progress, now)
            self.line.look(progress.load, now, effects)
            sequence = self._start(may_start, now, effects) if may_start is not None else None
        self._do(effects)
        return sequence

    def _start(
        self, may_start: Callable[[GenerationRequest], bool], now: float, effects: LineEffects
    ) -> GeneratingSequence | None:
        request = self.line.first(now, effects)
        if request is None or not may_start(request):
            return None
        self.line.take(request, now, effects)
        sequence = self._started[request] = GeneratingSequence(request, now)
        return sequence

    def wait(self) -> bool:
        """Wait until there are requests; False when there will never be any."""
        with self._work:
            self._work.wait_for(lambda: self.line.present or self.line.closed)
            return not self.line.exhausted

    def step_cost(self, most: int) -> RunCost | None:
        """Return what steps of up to ``most`` sequences are predicted to take; None while nothing is known."""
        with self._work:
            return self._forecast.times.step_cost(most)

    def close(self) -> None:
        """Reject new requests; those that wait still start."""
        with self._work:
            self.line.closed = True
            self._work.notify()

    def set_obstacle(self, obstacle: Callable[[], ServingError] | None) -> None:
        """Fail all requests, and those that come, with what ``obstacle`` returns; None to admit requests again."""
        with self._work:
            self.line.obstacle = obstacle
        if obstacle is not None:
            self.abandon(obstacle())

    def abandon(self, error: ServingError) -> None:
        """Fail all requests that have not ended."""
        effects: LineEffects = QueueEffects()
        with self._work:
            self.line.fail_all(error, effects)
            for sequence in self._started.values():
                sequence.removed_for = sequence.removed_for or ERROR
            self._work.notify()
        self._do(effects)
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
            self._forecast.ended(request, ended.sequence.generated, reason, now)

    def _do(self, effects: LineEffects) -> None:
        """Carry out ``effects`` in any thread."""
        self._count_and_arm(effects)
        self._outbox.post(effects.failed)

    def _do_here(self, effects: LineEffects) -> None:
        """Carry out ``effects`` on the poll thread."""
        self._count_and_arm(effects)
        self._outbox.deliver(effects.failed)

    def _count_and_arm(self, effects: LineEffects) -> None:
        now = self._clock()
        for request, error in effects.failed:
            count_refused(self._stats, request, error, now)
        for when in effects.timers_at:
            self._poll_thread.call_at(when, weak_callback(self._expire))

    def _expire(self) -> None:
        effects: LineEffects = QueueEffects()
        with self._work:
            self.line.expire(self._clock(), effects)
        self._do_here(effects)
