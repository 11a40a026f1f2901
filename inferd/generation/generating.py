"""What the engine's thread does: run after run, for all sequences in the cache."""

import logging
from collections.abc import Sequence

from inferd.batching.ports import Clock
from inferd.errors import DeadlineExceededError, InferenceFailedError, ServingError
from inferd.generation.endings import DEADLINE, ERROR, count_ended, reason_of
from inferd.generation.forecast import Load
from inferd.generation.intake import Ended, Intake, Progress
from inferd.generation.outbox import Outbox
from inferd.generation.ports import TextCodec
from inferd.generation.request import GenerationRequest
from inferd.generation.runs import ModelRuns, Result
from inferd.generation.scheduler import Chunk, Scheduler
from inferd.generation.slots import Slots, TokenBudget
from inferd.observability.metrics.generation import GenerationStats

_logger = logging.getLogger("inferd.generation")


class Generating:
    """The sequences that generate, from their start to their end.

    Invariants: the ``budget`` holds what the sequences in ``slots`` reserve; what a run gave is posted at once, all of
    it together. A sequence that was cancelled or has expired leaves before the next run. `turn` is called by one
    thread; ``slots``, ``budget`` and ``last_run_at`` may be read by any.
    """

    def __init__(
        self,
        *,
        slots: Slots,
        budget: TokenBudget,
        scheduler: Scheduler,
        runs: ModelRuns,
        intake: Intake,
        outbox: Outbox,
        text: TextCodec | None,
        clock: Clock,
        stats: GenerationStats,
    ) -> None:
        self.slots = slots
        self.budget = budget
        self._scheduler = scheduler
        self._runs = runs
        self._intake = intake
        self._outbox = outbox
        self._text = text
        self._clock = clock
        self._stats = stats
        #: When the last run began; 0 before the first one.
        self.last_run_at = 0.0
        # What the intake has not been told yet.
        self._ended: list[Ended] = []
        self._chunk: tuple[int, float] | None = None
        self._step: tuple[int, float] | None = None

    def turn(self) -> bool:
        """Start a request that may start, and run once; False if there was nothing to run."""
        try:
            self._remove_unwanted()
            self._start_next()
            return self._run()
        except Exception:
            # No request may hang because of a fault here, and the thread must survive.
            _logger.exception("generating failed; the requests that run fail too")
            self._fail_all()
            return True

    def _remove_unwanted(self) -> None:
        """Remove the sequences for which nobody waits any more, and those whose time is up."""
        now = self._clock()
        removed = [sequence for sequence in self.slots if sequence.removed_for]
        expired = [s for s in self.slots if s.request.deadline <= now and not s.removed_for]
        if removed:
            self._leave([Ended(sequence, sequence.removed_for) for sequence in removed])
        if expired:
            error = DeadlineExceededError("the deadline passed before the answer was complete")
            self._outbox.post([(sequence.request, error) for sequence in expired])
            self._leave([Ended(sequence, DEADLINE) for sequence in expired])

    def _start_next(self) -> None:
        progress = Progress(
            load=load_of(self.slots, self.budget), chunk=self._chunk, step=self._step, ended=self._ended
        )
        self._chunk = self._step = None
        self._ended = []
        # Which request is next need not be determined while none may start.
        may_start = self._may_start if self._scheduler.has_place(self.slots) else None
        sequence = self._intake.advance(progress, may_start)
        if sequence is None:
            return
        self.budget.reserve(sequence.request.rows)
        self.slots.join(sequence)
        self._stats.started(sequence.started_at - sequence.request.enqueued_at)
        try:
            sequence.prepare(self._text)
        except Exception:
            _logger.exception("preparing a request failed", extra={"request_id": sequence.request.request_id})
            self._finish([(sequence, InferenceFailedError())])

    def _may_start(self, request: GenerationRequest) -> bool:
        return self._scheduler.may_start(request, self.slots, self.budget)

    def _run(self) -> bool:
        """Make the next run; False if there is none."""
        run = self._scheduler.next_run(self.slots)
        if run is None:
            return False
        began_at = self.last_run_at = self._clock()
        if isinstance(run, Chunk):
            results = self._runs.chunk(run.sequence, run.tokens)
            if not run.sequence.prompt_left:
                self.slots.prefilled()
            self._finish(results)
            self._chunk = run.tokens, self._clock() - began_at
        else:
            sequences = list(self.slots.running)
            self._finish(self._runs.step(sequences))
            self._step = len(sequences), self._clock() - began_at
        return True

    def _finish(self, results: Sequence[Result]) -> None:
        """Post ``results``, and remove the sequences that have ended with them."""
        self._outbox.post([(sequence.request, outcome) for sequence, outcome in results])
        ended = []
        for sequence, outcome in results:
            end = outcome if isinstance(outcome, ServingError) else outcome.finish_reason
            if end is not None:
                ended.append(Ended(sequence, sequence.removed_for or reason_of(end)))
        if ended:
            self._leave(ended)

    def _fail_all(self) -> None:
        """Fail all sequences without a look at their slots, where anything may have gone wrong."""
        failed = self.slots.clear()
        self._outbox.post([(sequence.request, InferenceFailedError()) for sequence in failed])
        self._release([Ended(sequence, sequence.removed_for or ERROR) for sequence in failed])

    def _leave(self, ended: Sequence[Ended]) -> None:
        self.slots.leave([end.sequence for end in ended])
        self._release(ended)

    def _release(self, ended: Sequence[Ended]) -> None:
        now = self._clock()
        self._ended.extend(ended)
        for end in ended:
            self.budget.release(end.sequence.request.rows)
            count_ended(self._stats, end.sequence, end.reason, now)


def load_of(slots: Slots, budget: TokenBudget) -> Load:
    """Return what is in the cache, for the forecast."""
    return Load(
        sequences=len(slots),
        free_slots=slots.free,
        free_tokens=budget.free,
        prompt_tokens=sum(sequence.prompt_left for sequence in slots.prefilling),
    )
