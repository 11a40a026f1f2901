"""The engine of a loaded language model: from validated requests to deltas for their receivers."""

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from inferd.batching.policies import policy_for
from inferd.batching.ports import Alarm, Clock, PollThread
from inferd.batching.worker import LazyStart
from inferd.config.generation import GenerationSettings
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import ModelUnavailableError, RunTooLongError
from inferd.generation.engine_loop import EngineLoop, cache_load
from inferd.generation.forecast import GenerationForecast
from inferd.generation.intake import Intake
from inferd.generation.outbox import Outbox
from inferd.generation.ports import Decoder, Detokenizer
from inferd.generation.request import GenerationRequest
from inferd.generation.run_limit import RunLimit
from inferd.generation.runs import ModelRuns
from inferd.generation.scheduler import Scheduler
from inferd.generation.sequence import GeneratingSequence
from inferd.generation.slots import Slots, TokenBudget
from inferd.generation.waiting_queue import WaitingQueue
from inferd.observability.metrics.generation import GenerationSample, GenerationStats
from inferd.observability.metrics.models import ModelCounts
from inferd.observability.metrics.run_cost import RunCost
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import GENERATION_NICE, give_way

_logger = logging.getLogger("inferd.generation")


class GenerationEngine:
    """Generates for one loaded version of a language model, by continuous batching.

    Invariant: every submitted request gets a last delta or an error, or is cancelled, whatever the model, a deadline or
    `stop` does. Its receiver is called on the poll thread only.

    | called by | methods |
    |---|---|
    | the poll thread | ``submit``, ``cancel`` |
    | the thread that loads models | ``start``, ``stop`` (blocks) |
    | any | the properties, ``sample``, ``run_cost``, ``statistics`` |

    ``step_seeds`` and ``chunk_seeds`` are run times of the warm-up: sequences and seconds of decode steps, tokens and
    seconds of prefill chunks. ``on_health`` is called by any thread when a run does not end, and when it has. Without
    ``cache_bytes`` in ``settings``, all slots may be filled. Raises `ModelLoadError` for settings that do not fit the
    model.
    """

    def __init__(
        self,
        *,
        name: str,
        decoder: Decoder,
        detokenizer: Detokenizer | None,
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
        self._outbox = Outbox(poll_thread, self._notify_empty)
        total = total_tokens(decoder, settings)
        self._forecast = forecast = GenerationForecast(
            slots=decoder.slots,
            total_tokens=total,
            chunk_tokens=settings.prefill_chunk_tokens,
            max_delay_s=settings.max_delay_s,
        )
        forecast.times.seed(step_seeds, chunk_seeds)
        #: The most tokens that a request may reserve: its prompt and its ``max_tokens``.
        self.max_request_tokens = min(total, decoder.context_length)
        slots, budget = Slots(decoder), TokenBudget(total)
        self._intake = Intake(
            queue=WaitingQueue(
                name=name,
                queue=queue,
                generation=settings,
                policy=policy_for(queue),
                forecast=forecast,
                max_request_tokens=self.max_request_tokens,
            ),
            forecast=forecast,
            load=cache_load(slots, budget),
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
            on_stopped=self._fail_stopped,
            on_stuck=self._set_stuck,
        )
        self.loop = EngineLoop(
            slots=slots,
            budget=budget,
            scheduler=Scheduler(settings.prefill_chunk_tokens),
            runs=ModelRuns(name=name, decoder=decoder, detokenizer=detokenizer, limit=limit, clock=clock, stats=stats),
            intake=self._intake,
            outbox=self._outbox,
            detokenizer=detokenizer,
            clock=clock,
            stats=stats,
        )
        self._thread = _EngineThread(f"generate-{name}", self.loop, self._intake)
        self._lazy_start = LazyStart([self._thread], self._set_vacant)

    def start(self) -> None:
        """Accept requests; the thread starts with the first one."""
        self._lazy_start.allow()

    def submit(self, request: GenerationRequest) -> None:
        """Admit ``request`` or reject it; its receiver may be called before this returns."""
        self._stats.offered(len(request.prompt), request.max_tokens)
        self._outbox.add(request)
        if not self._thread.has_started:
            self._lazy_start.need()
        self._intake.submit(request)

    def cancel(self, request: GenerationRequest) -> None:
        """End ``request``: its receiver is not called again, and its slot is free before the next run."""
        if self._outbox.withdraw(request):
            self._intake.cancel(request)

    def stop(self, timeout_s: float) -> bool:
        """Reject new requests, finish the admitted ones, and end the thread.

        Return False if that takes more than ``timeout_s``, or if a run hangs. The remaining requests are failed then,
        and the thread may still use the decoder, which must not be closed.
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

    def _notify_empty(self) -> None:
        with self._empty:
            self._empty.notify_all()

    def _fail_stopped(self, sequences: Sequence[GeneratingSequence]) -> None:
        """Fail ``sequences`` whose run was stopped at its limit, without waiting for its end."""
        self._stats.model.run_ended("time_limit")
        error = RunTooLongError("the model ran for longer than a run may take")
        self._outbox.post([(sequence.request, error) for sequence in sequences])

    def _set_stuck(self, is_stuck: bool) -> None:
        self._thread.is_stuck = is_stuck
        self._set_vacant(is_stuck)
        self._on_health()

    def _set_vacant(self, is_vacant: bool) -> None:
        self._intake.set_unavailable(self._intake.queue.refusals.stuck if is_vacant else None)

    @property
    def running(self) -> int:
        """The number of sequences in the cache, prefilling and decoding."""
        return len(self.loop.slots)

    @property
    def waiting(self) -> int:
        """The number of waiting and blocked requests."""
        return self._intake.queue.count

    @property
    def waiting_tokens(self) -> int:
        """The tokens that the waiting requests will reserve."""
        return self._intake.queue.waiting.rows

    @property
    def waiting_limit_tokens(self) -> int:
        """The present limit of `waiting_tokens`."""
        return self._intake.queue.waiting.row_limit

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache that sequences may reserve."""
        return self.loop.budget.total * self._decoder.cache_bytes_per_token

    @property
    def cache_bytes_in_use(self) -> int:
        """Bytes of the cache that sequences have reserved for their prompts and their ``max_tokens``."""
        return self.loop.budget.reserved * self._decoder.cache_bytes_per_token

    def sample(self) -> GenerationSample:
        """Return the present state, for metrics."""
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
        """Return the predicted times of steps by their number of sequences; None while nothing is known."""
        return self._intake.step_cost(self._decoder.slots)

    def statistics(self) -> ModelCounts:
        """Return the counts since the start."""
        return self._stats.model.read()

    @property
    def cache_bytes_written(self) -> int:
        """Bytes of the cache that hold tokens; on the host, only these take memory."""
        return self.loop.slots.tokens * self._decoder.cache_bytes_per_token

    @property
    def unanswered_requests(self) -> int:
        """The number of requests that have not ended."""
        return self._outbox.open

    @property
    def last_dispatch_at(self) -> float:
        """When the last run began; 0 before the first one."""
        return self.loop.last_run_at

    @property
    def why_broken(self) -> str:
        """Why nothing runs at present, for the operator; empty while it works."""
        return "a run does not end" if self._thread.is_stuck else ""

    @property
    def is_hopeless(self) -> bool:
        """False: a run that hangs may still end, so no new process is needed to run the model again."""
        return False

    @property
    def stuck_threads(self) -> int:
        """1 while a run hangs."""
        return int(self._thread.is_stuck)


class _EngineThread:
    """The engine's thread. A daemon, so that a run that never ends does not keep the process alive."""

    def __init__(self, name: str, loop: EngineLoop, intake: Intake) -> None:
        self.name = name
        self.has_started = False
        self.is_stuck = False
        self._loop = loop
        self._intake = intake
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` if the system has none left."""
        self._thread.start()
        self.has_started = True

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; return False on timeout."""
        if self.has_started:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        give_way(GENERATION_NICE)
        while self._loop.run_once() or self._intake.wait_for_requests():
            pass


def require_policy(queue: QueueSettings) -> None:
    """Raise `ModelLoadError` for a backpressure policy that language models do not support."""
    if queue.policy is Backpressure.CALLER_RUNS:
        raise ModelLoadError(
            "queue.policy: expected reject, block or shed_oldest for a language model, got caller_runs: its requests "
            "share the runs of one cache and cannot run outside the queue; queue.policy in its model.yaml changes it"
        )


def total_tokens(decoder: Decoder, settings: GenerationSettings) -> int:
    """Return the number of tokens that the cache may hold. Raises `ModelLoadError` if it is less than two."""
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
