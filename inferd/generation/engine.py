"""The engine of a loaded language model: everything between a checked request and what its receiver gets."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from inferd.batching.policies import policy_for
from inferd.batching.ports import Alarm, Clock, PollThread
from inferd.batching.worker import LazyStart
from inferd.config.generation import GenerationSettings
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import ModelUnavailableError, RunTooLongError
from inferd.generation.forecast import GenerationForecast
from inferd.generation.generating import Generating, load_of
from inferd.generation.intake import Intake
from inferd.generation.line import WaitingLine
from inferd.generation.outbox import Outbox
from inferd.generation.ports import Decoder, TextCodec
from inferd.generation.request import GenerationRequest
from inferd.generation.run_limit import RunLimit
from inferd.generation.runs import ModelRuns
from inferd.generation.scheduler import Scheduler
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget
from inferd.observability.metrics.generation import GenerationSample, GenerationStats
from inferd.observability.metrics.models import ModelCounts
from inferd.observability.metrics.run_cost import RunCost
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import GENERATION_NICE, give_way

_logger = logging.getLogger("inferd.generation")


class GenerationEngine:
    """Generates for one loaded version of a language model.

    Invariant: every submitted request gets deltas up to a last one, or an error, or is cancelled, whatever the model, a
    deadline or `stop` does. Its receiver is called on the poll thread only.

    | called by | methods |
    |---|---|
    | the poll thread | ``submit``, ``cancel`` |
    | the thread that loads models | ``start``, ``stop`` (blocks) |
    | any | the numbers |

    ``step_seeds`` are sequences and seconds of steps before the model was ready, ``chunk_seeds`` tokens and seconds of
    chunks. ``on_health`` is called by any thread when a run does not end, and when it has. Without ``cache_bytes`` in
    ``settings``, all slots may be filled.
    """

    def __init__(
        self,
        *,
        name: str,
        decoder: Decoder,
        text: TextCodec | None,
        settings: GenerationSettings,
        queue: QueueSettings,
        max_run_s: float,
        clock: Clock,
        poll_thread: PollThread,
        alarm: Alarm,
        stats: GenerationStats,
        step_seeds: Iterable[tuple[int, float]] = (),
        chunk_seeds: Iterable[tuple[int, float]] = (),
        on_health: Callable[[], None] = lambda: None,
    ) -> None:
        require_policy(queue)
        self._name = name
        self._decoder = decoder
        self._clock = clock
        self._stats = stats
        self._on_health = on_health
        self._empty = threading.Condition()
        self._outbox = Outbox(poll_thread, self._is_empty)
        total = total_tokens(decoder, settings)
        self._forecast = forecast = GenerationForecast(
            slots=decoder.slots,
            total_tokens=total,
            chunk_tokens=settings.prefill_chunk_tokens,
            max_delay_s=settings.max_delay_s,
        )
        forecast.times.seed(step_seeds, chunk_seeds)
        #: The most tokens of a request, its prompt and what it may generate.
        self.largest_request = min(total, decoder.context_length)
        slots, budget = Slots(decoder), TokenBudget(total)
        self._intake = Intake(
            line=WaitingLine(
                name=name,
                queue=queue,
                generation=settings,
                policy=policy_for(queue),
                forecast=forecast,
                largest=self.largest_request,
            ),
            forecast=forecast,
            load=load_of(slots, budget),
            outbox=self._outbox,
            clock=clock,
            poll_thread=poll_thread,
            stats=stats,
        )
        limit = RunLimit(
            name=name,
            limit_s=max_run_s,
            clock=clock,
            alarm=alarm,
            stop_run=decoder.stop_run,
            on_ended=self._run_ended,
            on_stuck=self._set_stuck,
        )
        #: What the thread does.
        self.generating = Generating(
            slots=slots,
            budget=budget,
            scheduler=Scheduler(settings.prefill_chunk_tokens),
            runs=ModelRuns(name=name, decoder=decoder, text=text, limit=limit, clock=clock, stats=stats),
            intake=self._intake,
            outbox=self._outbox,
            text=text,
            clock=clock,
            stats=stats,
        )
        self._thread = _EngineThread(f"generate-{name}", self.generating, self._intake)
        self._lazy_start = LazyStart([self._thread], self._set_vacant)

    def start(self) -> None:
        """Let the thread start with the first request."""
        self._lazy_start.allow()

    def submit(self, request: GenerationRequest) -> None:
        """Generate for ``request`` or refuse it; its receiver may be told before this returns."""
        self._stats.offered(len(request.prompt), request.max_tokens)
        self._outbox.add(request)
        if not self._thread.has_started:
            self._lazy_start.need()
        self._intake.submit(request)

    def cancel(self, request: GenerationRequest) -> None:
        """End ``request``: its receiver gets nothing more, and its place is free before the next run."""
        if self._outbox.withdraw(request):
            self._intake.cancel(request)

    def stop(self, timeout_s: float) -> bool:
        """Reject new requests, finish the admitted ones, and end the thread.

        Returns True when everything has finished. Returns False after ``timeout_s``, when the remaining requests are
        failed, or if a run hangs; the thread may still use the decoder, which must then not be closed.
        """
        ended_at = self._clock() + timeout_s
        self._intake.close()
        with self._empty:
            finished = self._empty.wait_for(lambda: self._outbox.open == 0, timeout_s)
        if not finished:
            _logger.error("model %s is unloaded before all requests were answered", self._name)
            self._intake.abandon(
                ModelUnavailableError(f'model "{self._name}" was unloaded before the answer was complete')
            )
            return False
        if self._thread.join(max(0.0, ended_at - self._clock())):
            return True
        _logger.error("model %s is unloaded while a run hangs", self._name)
        return False

    def _is_empty(self) -> None:
        with self._empty:
            self._empty.notify_all()

    def _run_ended(self, sequences: Sequence[GeneratingSequence]) -> None:
        """Fail ``sequences`` whose run is at its limit, before it has ended."""
        self._stats.model.run_ended("time_limit")
        error = RunTooLongError("the model ran for longer than a run may take")
        self._outbox.post([(sequence.request, error) for sequence in sequences])

    def _set_stuck(self, is_stuck: bool) -> None:
        self._thread.is_stuck = is_stuck
        self._set_vacant(is_stuck)
        self._on_health()

    def _set_vacant(self, is_vacant: bool) -> None:
        self._intake.set_obstacle(self._intake.line.refusals.stuck if is_vacant else None)

    @property
    def running(self) -> int:
        """Sequences in the cache, those whose prompt is being read included."""
        return len(self.generating.slots)

    @property
    def waiting(self) -> int:
        """Requests that wait or are blocked."""
        return self._intake.line.present

    @property
    def waiting_tokens(self) -> int:
        """Tokens that waiting requests will reserve."""
        return self._intake.line.waiting.rows

    @property
    def waiting_limit_tokens(self) -> int:
        """Tokens that may wait at present, at most."""
        return self._intake.line.waiting.row_limit

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache that sequences may reserve."""
        return self.generating.budget.total * self._decoder.cache_bytes_per_token

    @property
    def cache_bytes_in_use(self) -> int:
        """Bytes of the cache that sequences have reserved, for their prompts and all that they may generate."""
        return self.generating.budget.reserved * self._decoder.cache_bytes_per_token

    def sample(self) -> GenerationSample:
        """Return the numbers of this moment, for metrics."""
        return GenerationSample(
            running=self.running,
            max_running=self._decoder.slots,
            waiting=self.waiting,
            waiting_tokens=self.waiting_tokens,
            cache_bytes=self.cache_bytes,
            cache_used_bytes=self.cache_bytes_in_use,
            capacity_tokens_per_s=self._forecast.tokens_per_s,
        )

    def run_cost(self) -> RunCost | None:
        """Return what steps are predicted to take, by their sequences; None while nothing is known."""
        return self._intake.step_cost(self._decoder.slots)

    def statistics(self) -> ModelCounts:
        """Return the counts since the start."""
        return self._stats.model.read()

    @property
    def cache_bytes_written(self) -> int:
        """Bytes of the cache that hold tokens; on the host, no others take memory."""
        return self.generating.slots.tokens * self._decoder.cache_bytes_per_token

    @property
    def unanswered_requests(self) -> int:
        """Requests that are waiting, blocked or running."""
        return self._outbox.open

    @property
    def last_dispatch_at(self) -> float:
        """When the last run began; 0 before the first one."""
        return self.generating.last_run_at

    @property
    def why_broken(self) -> str:
        """Why nothing runs at present, for the operator; empty while it works."""
        return "a run does not end" if self._thread.is_stuck else ""

    @property
    def is_hopeless(self) -> bool:
        """Whether only a new process is likely to run the model again: that is not known of a run that hangs."""
        return False

    @property
    def stuck_threads(self) -> int:
        """1 while a run hangs."""
        return int(self._thread.is_stuck)


class _EngineThread:
    """The thread that generates. A daemon: a run that never ends must not keep the process alive."""

    def __init__(self, name: str, generating: Generating, intake: Intake) -> None:
        self.name = name
        self.has_started = False
        self.is_stuck = False
        self._generating = generating
        self._intake = intake
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it. Raises `RuntimeError` if the system gives no thread."""
        self._thread.start()
        self.has_started = True

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended; False on timeout."""
        if self.has_started:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        give_way(GENERATION_NICE)
        while self._generating.turn() or self._intake.wait():
            pass


def require_policy(queue: QueueSettings) -> None:
    """Raise `ModelLoadError` for a policy that a language model cannot have."""
    if queue.policy is Backpressure.CALLER_RUNS:
        raise ModelLoadError(
            "queue.policy: expected reject, block or shed_oldest for a language model, got caller_runs: its requests "
            "share the runs of one cache and cannot run outside the queue; queue.policy in its model.yaml changes it"
        )


def total_tokens(decoder: Decoder, settings: GenerationSettings) -> int:
    """Return how many tokens the cache may hold. Raises `ModelLoadError` if that is not one."""
    all_slots = decoder.slots * decoder.context_length
    if settings.cache_bytes is None:
        return all_slots
    tokens = settings.cache_bytes // decoder.cache_bytes_per_token
    if tokens < 2:
        raise ModelLoadError(
            f"generation.cache_bytes: expected at least {2 * decoder.cache_bytes_per_token}, two tokens of this model, "
            f"got {settings.cache_bytes}"
        )
    return min(all_slots, tokens)
