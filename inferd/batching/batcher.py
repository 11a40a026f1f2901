"""The batcher of a model version: everything between a validated request and its answer."""

import logging
import math
from collections.abc import Callable, Iterable

from inferd.batching.execution import Executor
from inferd.batching.failed_runs import FailedRuns
from inferd.batching.idle_cores import CoreShare, IdleCores
from inferd.batching.instances import IDLE, LOAD, NO_GAIN, NO_THREAD, Instances
from inferd.batching.memory_limit import MemoryLimit
from inferd.batching.one_core_opener import OneCoreOpener
from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.ports import Alarm, Clock, OneCoreSession, PollThread, Session
from inferd.batching.queue import RequestQueue
from inferd.batching.recovery import Recovery
from inferd.batching.request import Batch, InstanceChange, ReplyDispatcher
from inferd.batching.run_guard import RunGuard
from inferd.batching.self_check import SelfCheck
from inferd.batching.state import QueueState
from inferd.batching.worker import CallerRuns, Post, Workers
from inferd.config.settings import Backpressure, BatchingSettings, QueueSettings
from inferd.errors import ModelUnavailableError, OverloadedError
from inferd.observability.metrics.models import ModelCounts, ModelStats
from inferd.observability.metrics.run_cost import RunCost

_logger = logging.getLogger("inferd.batching")

#: Reasons for a change of the number of instances, as texts for the log.
_WHY = {
    LOAD: "requests wait for running ones",
    NO_GAIN: "more were not faster",
    IDLE: "more were not needed",
    NO_THREAD: "the system gives no further thread",
}

#: How long a rejection's error is reused, so that its status is not encoded again for each rejected call.
_REUSED_ERROR_S = 0.005


class Batcher:
    """The bounded queue of a model version and its workers.

    Invariant: every submitted request gets exactly one outcome, or is cancelled, whatever the model, a policy, a
    deadline or `stop` does. Requests are submitted to the ``queue``. `start` and `stop` are called by the thread that
    loads models; the counts may be read by any thread. ``seeds`` are rows and seconds of runs in warm-up.
    ``on_health`` is called by any thread when the session stops working, and when it works again; ``free_idle`` when a
    run is out of memory: it frees what other models keep for their next runs, and returns False if there is none.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        one_core: OneCoreSession | None = None,
        queue: QueueSettings,
        batching: BatchingSettings,
        max_run_s: float,
        clock: Clock,
        poll_thread: PollThread,
        alarm: Alarm,
        stats: ModelStats,
        seeds: Iterable[tuple[int, float]] = (),
        idle_cores: IdleCores | None = None,
        on_health: Callable[[], None] = lambda: None,
        free_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        max_rows = batching.max_batch_size if batching.enabled and session.signature.batchable else None
        self._name = name
        self._clock = clock
        self._stats = stats
        self._on_health = on_health
        replies = ReplyDispatcher(clock=clock, stats=stats)
        # Runs on an accelerator do not compete for the processors.
        shared = idle_cores if idle_cores is not None and not session.on_accelerator else IdleCores()
        self._cores = shared.register()
        rules = BatchRules(
            max_rows=max_rows or 1,
            max_wait_s=batching.max_wait_ms / 1000,
            preferred=frozenset(batching.preferred_sizes),
        )
        #: How many batches may run at a time; to read without the lock of the queue.
        self.instances = Instances(
            least=batching.min_instances, most=batching.max_instances, likely=session.parallel_runs
        )
        self.instances.changed = self._instances_changed
        state = _queue_state(name, session, queue, rules, instances=self.instances, cores=self._cores, seeds=seeds)
        #: Returns why a request would be rejected now, before it is decoded; see `FullQueueCheck.error`.
        self.early_refusal = FullQueueCheck(state).error
        #: The waiting requests; their counts may be read without the lock of the queue.
        self.waiting = state.waiting
        guard = RunGuard(
            name=name,
            session=session,
            one_core=one_core,
            limit_s=max_run_s,
            clock=clock,
            alarm=alarm,
            replies=replies,
            on_stuck=self._replace,
        )
        self._failures = FailedRuns(
            name=name,
            session=session,
            replies=replies,
            memory=MemoryLimit(
                name=name, most_rows=max_rows or 1, clock=clock, alarm=alarm, on_change=self._limit_rows
            ),
            recovery=Recovery(
                name=name, session=session, clock=clock, alarm=alarm, stats=stats, on_change=self._set_working
            ),
            in_pieces=max_rows is not None,
            on_mismatch=self._run_alone,
            free_idle=free_idle,
        )
        self._executor = Executor(
            name=name,
            session=session,
            guard=guard,
            chunk_rows=max_rows,
            clock=clock,
            replies=replies,
            poll_thread=poll_thread,
            check=SelfCheck(session=session, share=batching.check_share, clock=clock),
            failures=self._failures,
        )
        self.queue = RequestQueue(
            state=state,
            replies=replies,
            clock=clock,
            poll_thread=poll_thread,
            run_here=self._executor.execute,
            run_outside=self._run_outside,
            on_running_settled=guard.end_abandoned,
        )
        self._caller_runs = CallerRuns(
            name=f"caller-{name}",
            threads=queue.caller_runs_limit if queue.policy is Backpressure.CALLER_RUNS else 0,
            queue=self.queue,
        )
        most_runs = batching.max_instances if one_core is None else one_core.runs
        posts = [Post(f"batch-{name}-{number}", self.queue) for number in range(most_runs)]
        self._workers = Workers(
            executor=self._executor,
            posts=[*posts[: batching.min_instances], *self._caller_runs.posts],
            spare=posts[batching.min_instances :],
            hand_over=self.queue.hand_over,
            on_vacancy=self.queue.set_stuck,
            clock=clock,
        )
        if session.most_rows is not None:
            self._failures.memory.begin_with(session.most_rows)
        self.queue.start_threads = self._workers.lazy_start.need
        if one_core is not None:
            opener = OneCoreOpener(name, one_core, self._workers, self.queue, max_rows or 1)
            state.run_on_one_core(one_core, opener.start, lambda: poll_thread.late_at)

    def start(self) -> None:
        """Let the workers start with the first request."""
        self._workers.lazy_start.allow()

    def refused(self, rows: int, received_at: float, error: OverloadedError) -> None:
        """Count a request of ``rows`` that was not submitted because of an `early_refusal`."""
        self._stats.offered(rows)
        self._stats.failed(self._clock() - received_at, error.reason)

    def stop(self, timeout_s: float) -> bool:
        """Reject new requests, finish the admitted ones, and end the workers.

        Returns True when everything has finished. Returns False after ``timeout_s``, when the remaining requests are
        failed, or if a thread hangs; that thread may still use the session, which must then not be closed.
        """
        ended_at = self._clock() + timeout_s
        self._failures.recovery.stop()
        self.queue.close()
        finished = self.queue.wait_drained(timeout_s)
        self._caller_runs.stop()
        self._cores.close()
        if not finished:
            _logger.error("model %s is unloaded before all requests were answered", self._name)
            self.queue.abandon(ModelUnavailableError(f'model "{self._name}" was unloaded before there was an answer'))
            return False
        return self._ended(max(0.0, ended_at - self._clock()))

    def _ended(self, timeout_s: float) -> bool:
        if self._workers.join(timeout_s):
            return True
        _logger.error("model %s is unloaded while a thread hangs in a run", self._name)
        return False

    def _run_outside(self, batch: Batch) -> None:
        self._caller_runs.run(batch)

    def _replace(self, batch: Batch) -> None:
        self._workers.replace(batch)

    def _instances_changed(self, change: InstanceChange) -> None:
        text = "model %s may run %d batches at a time: %s"
        _logger.info(text, self._name, change.count, _WHY[change.reason], extra={"reason": change.reason})
        if change.starts_thread and not self._workers.add():
            self.queue.no_thread()

    def _run_alone(self) -> None:
        self.queue.stop_batching()

    def _limit_rows(self, rows: int) -> None:
        self._executor.chunk_rows = rows
        self.queue.limit_rows(rows)

    def _set_working(self, works: bool) -> None:
        self.queue.set_broken(None if works else self._failures.recovery.unavailable)
        self._on_health()

    @property
    def max_rows(self) -> int:
        """The most rows that run at once at present; fewer than configured while the memory is not enough for more."""
        return self._failures.memory.rows

    @property
    def why_broken(self) -> str:
        """The reason why the session runs nothing at present, for the operator; empty while it works."""
        return self._failures.recovery.reason

    @property
    def is_hopeless(self) -> bool:
        """True if only a new process is likely to run the model again."""
        return self._failures.recovery.is_hopeless

    @property
    def queue_rows(self) -> int:
        """Waiting rows."""
        return self.waiting.rows

    @property
    def queue_limit_rows(self) -> int:
        """The most rows that may wait at present."""
        return self.waiting.row_limit

    @property
    def most_rows_per_s(self) -> float:
        """Rows per second of one worker at the cheapest batch size; 0 before the first run."""
        return self.queue.most_rows_per_s

    def run_cost(self) -> RunCost | None:
        """Return the predicted durations of runs; None while nothing is known."""
        return self.queue.run_cost()

    @property
    def queue_bytes(self) -> int:
        """Bytes of waiting inputs."""
        return self.waiting.nbytes

    @property
    def running_rows(self) -> int:
        """Rows in running batches."""
        return self.queue.running_rows

    @property
    def unanswered_requests(self) -> int:
        """Requests that are waiting, blocked or running."""
        return self.queue.present

    @property
    def last_dispatch_at(self) -> float:
        """When the last batch was dispatched; 0 before the first one."""
        return self.queue.last_dispatch_at

    @property
    def stuck_threads(self) -> int:
        """Threads that hang in a run that was given up."""
        return self._workers.stuck

    @property
    def one_core_batches(self) -> int:
        """Batches that ran on one core beside others, so far."""
        return self.queue.one_core_batches

    def statistics(self) -> ModelCounts:
        """Return the counts since the start."""
        return self._stats.read()


class FullQueueCheck:
    """Rejects requests by priority, principal and deadline alone, so that they need not be decoded.

    Poll thread only, which is also the only one that admits requests. So the state is read without its lock: meanwhile
    a worker can only make room, which the next request gets.
    """

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._error: OverloadedError | None = None
        self._usable_until = -math.inf

    def error(
        self, priority: int, deadline: float, now: float, *, principal: str = "", weight: float = 1.0
    ) -> OverloadedError | None:
        """Return why a request of at least one row would be rejected at ``now``, None if it may be admitted."""
        state = self._state
        waiting = state.waiting
        if waiting.rows < waiting.row_limit or deadline <= now or not state.rejects_when_full(now):
            return None
        if waiting.rows < waiting.max_rows and waiting.fits_in_turn(1, priority, principal, weight):
            return None
        if waiting.scavengers.rows and priority <= waiting.priority_levels:
            # Scavengers would be evicted.
            return None
        if now >= self._usable_until:
            self._error = state.refusals.overloaded("QUEUE_FULL")
            self._usable_until = now + _REUSED_ERROR_S
        return self._error


def _queue_state(
    name: str,
    session: Session,
    queue: QueueSettings,
    rules: BatchRules,
    *,
    instances: Instances,
    cores: CoreShare,
    seeds: Iterable[tuple[int, float]],
) -> QueueState:
    """Return the state of an empty queue, limited by what the runs of warm-up took."""
    state = QueueState(
        name=name,
        settings=queue,
        policy=policy_for(queue),
        rules=rules,
        workers=instances.count,
        parallel_runs=session.parallel_runs,
        runs_are_bounded=session.runs_are_bounded,
        cores=cores,
        instances=instances if instances.may_change else None,
    )
    for rows, run_s in seeds:
        state.rules.run_cost.seed(rows, run_s)
        instances.slowdowns.alone.seed(rows, run_s)
    state.waiting.row_limit = state.forecast.row_limit(queue.max_rows, 0)
    return state
