"""The loop of the engine's thread: one run after another, for all sequences in the cache."""

import logging
from collections.abc import Sequence

from inferd.batching.ports import Clock
from inferd.errors import DeadlineExceededError, InferenceFailedError, ServingError
from inferd.generation.finish_reasons import DEADLINE, ERROR, count_finished, finish_reason
from inferd.generation.forecast import CacheLoad
from inferd.generation.intake import EndedSequence, Intake, Progress
from inferd.generation.outbox import Outbox
from inferd.generation.ports import Detokenizer
from inferd.generation.request import GenerationRequest
from inferd.generation.runs import ModelRuns, Result
from inferd.generation.scheduler import PrefillChunk, Scheduler
from inferd.generation.slots import Slots, TokenBudget
from inferd.observability.metrics.generation import GenerationStats

_logger = logging.getLogger("inferd.generation")

#: For how much of the time of a step the next one may wait for its tokens to be sent. Where both need the cores, those
#: that send are interrupted for milliseconds otherwise, and requests to other models wait meanwhile.
_SENDING_SHARE = 0.1


class EngineLoop:
    """Serves sequences from their start to their end.

    Invariants: ``budget`` counts what the sequences in ``slots`` reserve. The whole output of a run is posted at once.
    A cancelled or expired sequence is removed before the next run. `run_once` is called by one thread; ``slots``,
    ``budget`` and ``last_run_at`` may be read by any.
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
        detokenizer: Detokenizer | None,
        clock: Clock,
        stats: GenerationStats,
    ) -> None:
        self.slots = slots
        self.budget = budget
        self._scheduler = scheduler
        self._runs = runs
        self._intake = intake
        self._outbox = outbox
        self._detokenizer = detokenizer
        self._clock = clock
        self._stats = stats
        #: When the last run began; 0 before the first one.
        self.last_run_at = 0.0
        # Progress since the last report to the intake.
        self._ended: list[EndedSequence] = []
        self._chunk: tuple[int, float] | None = None
        self._step: tuple[int, float] | None = None

    def run_once(self) -> bool:
        """Start a request if one may start, and make one run; return False if there is nothing to run."""
        try:
            self._remove_cancelled_and_expired()
            self._start_next()
            return self._run()
        except Exception:
            # No request may hang because of a fault here, and the thread must survive.
            _logger.exception("generating failed; the requests that run fail too")
            self._fail_all()
            return True

    def _remove_cancelled_and_expired(self) -> None:
        """Remove the sequences that other threads have marked, and those whose deadline has passed."""
        now = self._clock()
        removed = [sequence for sequence in self.slots if sequence.removal_reason]
        expired = [s for s in self.slots if s.request.deadline <= now and not s.removal_reason]
        if removed:
            self._remove([EndedSequence(sequence, sequence.removal_reason) for sequence in removed])
        if expired:
            error = DeadlineExceededError("the deadline passed before the answer was complete")
            self._outbox.post([(sequence.request, error) for sequence in expired])
            self._remove([EndedSequence(sequence, DEADLINE) for sequence in expired])

    def _start_next(self) -> None:
        progress = Progress(
            load=cache_load(self.slots, self.budget), chunk=self._chunk, step=self._step, ended=self._ended
        )
        self._chunk = self._step = None
        self._ended = []
        # Sorting out which request is next can be saved while none may start.
        may_start = self._may_start if self._scheduler.may_start_any(self.slots) else None
        sequence = self._intake.start_next(progress, may_start)
        if sequence is None:
            return
        self.budget.reserve(sequence.request.rows)
        self.slots.add(sequence)
        self._stats.started(sequence.started_at - sequence.request.enqueued_at)
        try:
            sequence.prepare(self._detokenizer)
        except Exception:
            _logger.exception("preparing a request failed", extra={"request_id": sequence.request.request_id})
            self._finish([(sequence, InferenceFailedError())])

    def _may_start(self, request: GenerationRequest) -> bool:
        return self._scheduler.may_start(request, self.slots, self.budget)

    def _run(self) -> bool:
        """Make the next run; return False if there is none."""
        run = self._scheduler.next_run(self.slots)
        if run is None:
            return False
        began_at = self.last_run_at = self._clock()
        if isinstance(run, PrefillChunk):
            results = self._runs.prefill(run.sequence, run.tokens)
            if not run.sequence.prompt_left:
                self.slots.finish_prefill()
            self._finish(results)
            self._chunk = run.tokens, self._clock() - began_at
        else:
            sequences = list(self.slots.decoding)
            self._finish(self._runs.decode(sequences))
            self._outbox.wait_until_sent((self._clock() - began_at) * _SENDING_SHARE)
            self._step = len(sequences), self._clock() - began_at
        return True

    def _finish(self, results: Sequence[Result]) -> None:
        """Post ``results``, and remove the sequences that have ended with them."""
        self._outbox.post([(sequence.request, outcome) for sequence, outcome in results])
        ended = []
        for sequence, outcome in results:
            end = outcome if isinstance(outcome, ServingError) else outcome.finish_reason
            if end is not None:
                ended.append(EndedSequence(sequence, sequence.removal_reason or finish_reason(end)))
        if ended:
            self._remove(ended)

    def _fail_all(self) -> None:
        """Fail all sequences without using the cache, whose state is unknown after a fault."""
        failed = self.slots.clear()
        self._outbox.post([(sequence.request, InferenceFailedError()) for sequence in failed])
        self._release([EndedSequence(sequence, sequence.removal_reason or ERROR) for sequence in failed])

    def _remove(self, ended: Sequence[EndedSequence]) -> None:
        self.slots.remove([end.sequence for end in ended])
        self._release(ended)

    def _release(self, ended: Sequence[EndedSequence]) -> None:
        now = self._clock()
        self._ended.extend(ended)
        for end in ended:
            self.budget.release(end.sequence.request.rows)
            count_finished(self._stats, end.sequence, end.reason, now)


def cache_load(slots: Slots, budget: TokenBudget) -> CacheLoad:
    """Return the present load of the cache."""
    return CacheLoad(
        sequences=len(slots),
        free_slots=slots.free,
        free_tokens=budget.free,
        prompt_tokens=sum(sequence.prompt_left for sequence in slots.prefilling),
    )
