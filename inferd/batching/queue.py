"""The queue of a model version: `QueueState` guarded by a lock, shared by the poll thread and the workers."""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence

from inferd.batching.planner import WaitUntil
from inferd.batching.ports import Clock, PollThread
from inferd.batching.request import Batch, DispatchEffects, InferenceRequest, ReplyDispatcher
from inferd.batching.state import Obstacle, QueueState
from inferd.errors import InferenceFailedError, ServingError
from inferd.observability.metrics.run_cost import RunCost

_logger = logging.getLogger("inferd.batching")


class RequestQueue:
    """Admits requests and dispatches batches.

    Invariants: one lock guards the state; it is not held while requests are answered, timers armed or models run. An
    idle worker is woken by whatever could make a batch ready.

    | called by | methods |
    |---|---|
    | the rpc poll thread | ``submit``, ``cancel`` |
    | the batch workers | ``take``, which blocks |
    | the threads of `CallerRuns` | ``retire`` |
    | a thread that detects that another one hangs, or has returned | ``hand_over``, ``set_stuck`` |
    | a worker that could not start another one | ``no_thread`` |
    | a thread whose runs show that the session is broken, or short of memory | ``set_broken``, ``limit_rows`` |
    | the thread that unloads the model | ``close``, ``wait_drained`` (blocks), ``abandon`` |

    While runs are short, the poll thread runs batches itself with ``run_here`` when it is idle. ``run_outside`` runs
    those of caller_runs. ``on_running_settled`` is called when requests that may be running have expired or were
    cancelled.
    """

    def __init__(
        self,
        *,
        state: QueueState,
        replies: ReplyDispatcher,
        clock: Clock,
        poll_thread: PollThread,
        run_here: Callable[[Batch], None],
        run_outside: Callable[[Batch], None],
        on_running_settled: Callable[[], None],
    ) -> None:
        self._run_here = run_here
        self._run_outside = run_outside
        #: Called for each request until it returns True. Set before the first request, if there are threads to start.
        self.start_threads: Callable[[], bool] | None = None
        self._on_running_settled = on_running_settled
        self._state = state
        self._replies = replies
        self._clock = clock
        self._poll_thread = poll_thread
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._drained = threading.Condition(self._lock)
        self._idle_workers = 0
        # Used by the poll thread only.
        self._wake_due = False
        state.cores.wake = self._wake_worker

    @property
    def most_rows_per_s(self) -> float:
        """Rows per second of one worker at the cheapest batch size; 0 before the first run."""
        return self._state.rules.run_cost.most_rows_per_s

    @property
    def one_core_batches(self) -> int:
        """Batches that ran on one core beside others, so far."""
        one_core = self._state.one_core
        return 0 if one_core is None else one_core.batches

    def run_cost(self) -> RunCost | None:
        """Return the predicted durations of runs; None while nothing is known."""
        with self._lock:
            rules = self._state.rules
            return rules.run_cost.snapshot(rules.rules.max_rows)

    @property
    def running_rows(self) -> int:
        """Rows in batches that have been dispatched and not retired."""
        with self._lock:
            return self._state.running_rows

    @property
    def present(self) -> int:
        """Requests that are waiting, blocked or running."""
        with self._lock:
            return self._state.present

    @property
    def last_dispatch_at(self) -> float:
        """When the last batch was dispatched; 0 before the first one."""
        return self._state.forecast.drain.last_at

    def submit(self, requests: Sequence[InferenceRequest]) -> None:
        """Run or reject ``requests``; they are answered through their replies, possibly before this returns."""
        if self.start_threads is not None and self.start_threads():
            self.start_threads = None
        self._replies.offered(requests)
        effects = DispatchEffects()
        outside: Sequence[Batch] = ()
        wake_later = False
        with self._lock:
            now = self._clock()
            for request in requests:
                batch = self._state.offer(request, now, effects)
                if batch is not None:
                    outside = (*outside, batch)
            if effects.wake_worker and self._idle_workers:
                rules = self._state.rules
                if self._state.waiting.rows < rules.rules.max_rows or rules.run_cost.short.are_short:
                    # A worker woken by the first of several requests that are ready to be read would run it alone.
                    wake_later = not self._wake_due
                else:
                    self._work.notify()
        if wake_later:
            self._run_or_wake_when_idle()
        self._carry_out(effects)
        for batch in outside:
            self._replies.caller_ran()
            self._run_outside(batch)

    def _run_or_wake_when_idle(self) -> None:
        self._wake_due = True
        self._poll_thread.call_when_idle(self._run_or_wake)

    def _run_or_wake(self) -> None:
        """Run the next batch here, on the poll thread, if its run is short; otherwise wake a worker."""
        self._wake_due = False
        with self._lock:
            if not self._state.rules.run_cost.short.are_short:
                self._work.notify()
                return
            effects = DispatchEffects()
            batch = self._plan(self._clock(), effects, only_short=True)
            if not isinstance(batch, Batch):
                self._work.notify()
        self._carry_out(effects)
        if not isinstance(batch, Batch):
            return
        self._run_here(batch)
        with self._lock:
            self._state.retire(batch, self._clock())
            effects.wakes_others = bool(self._state.cores.pool.waiting)
            # If no worker is idle, all permitted runs are in progress, and the first to finish takes the rest.
            more = self._state.waiting.count > 0 and self._idle_workers > 0
            if self._state.closed:
                self._notify_drained()
        if effects.wakes_others:
            self._state.cores.wake_others()
        if more and not self._wake_due:
            self._run_or_wake_when_idle()

    def cancel(self, request: InferenceRequest) -> None:
        """Cancel ``request`` and free its place immediately; no effect if it has been answered."""
        if not request.reply.withdraw():
            return
        effects = DispatchEffects()
        with self._lock:
            self._state.remove(request, self._clock(), effects)
            self._notify(effects)
        self._carry_out(effects)

    def take(self, finished: Batch | None) -> Batch | None:
        """Retire the ``finished`` batch and wait for the next one; None when the worker is to end."""
        idle_since = self._clock()
        while True:
            effects = DispatchEffects()
            with self._lock:
                if finished is not None:
                    self._state.retire(finished, idle_since)
                    effects.wakes_others = bool(self._state.cores.pool.waiting)
                    finished = None
                batch = self._next_batch(idle_since, effects)
                ended = batch is None and (self._state.exhausted or self._is_dismissed())
                self._notify(effects)
            self._carry_out(effects)
            if batch is not None or ended:
                return batch

    def retire(self, batch: Batch) -> None:
        """Retire a batch that ran outside the queue."""
        effects = DispatchEffects()
        with self._lock:
            self._state.retire(batch, self._clock())
            effects.wakes_others = bool(self._state.cores.pool.waiting)
            self._notify(effects)
        if effects.wakes_others:
            self._state.cores.wake_others()

    def hand_over(self, batch: Batch) -> Batch | None:
        """Give up a ``batch`` whose thread hangs. Returns the rest of it, for another thread to run."""
        effects = DispatchEffects()
        with self._lock:
            rest = self._state.hand_over(batch, self._clock(), effects)
            effects.wakes_others = bool(self._state.cores.pool.waiting)
            self._notify(effects)
        self._carry_out(effects)
        return rest

    def no_thread(self) -> None:
        """Remove the instance that was added, as the system gives no thread for it."""
        effects = DispatchEffects()
        with self._lock:
            if self._state.scaling is not None:
                self._state.scaling.no_thread(self._clock(), effects)
        self._carry_out(effects)

    def one_core_opened(self, seeds: Iterable[tuple[int, float]]) -> None:
        """Run batches on one core each from now on, while full ones wait; see `OneCoreRuns.opened`."""
        with self._lock:
            if self._state.one_core is not None:
                self._state.one_core.opened(seeds)

    def set_stuck(self, is_stuck: bool) -> None:
        """Reject all requests, the waiting ones included, or accept requests again."""
        self._set_obstacle(Obstacle.STUCK, self._state.refusals.stuck if is_stuck else None)

    def set_broken(self, error: Callable[[], ServingError] | None) -> None:
        """Reject all requests, the waiting ones included, with what ``error`` returns; None to accept them again."""
        self._set_obstacle(Obstacle.BROKEN, error)

    def _set_obstacle(self, obstacle: Obstacle, error: Callable[[], ServingError] | None) -> None:
        effects = DispatchEffects()
        with self._lock:
            self._state.set_obstacle(obstacle, error, effects)
            self._notify(effects)
        self._carry_out(effects)

    def limit_rows(self, max_rows: int) -> None:
        """Have at most ``max_rows`` in a batch from now on."""
        with self._lock:
            self._state.limit_rows(max_rows)
            # Batches that are held may be complete now.
            self._work.notify_all()

    def stop_batching(self) -> None:
        """Dispatch each request alone from now on, without waiting for others; any thread may call."""
        with self._lock:
            self._state.rules.stop_batching()
            self._work.notify_all()

    def close(self) -> None:
        """Reject new requests; waiting and blocked ones still run."""
        with self._lock:
            self._state.close()
            # Workers run the batches they hold, or end. None waits after that: in a closed queue every batch is ready.
            self._work.notify_all()

    def wait_drained(self, timeout_s: float) -> bool:
        """Wait until all requests have been answered; False on timeout. The queue must be closed."""
        with self._lock:
            return self._drained.wait_for(lambda: self._state.drained, timeout_s)

    def abandon(self, error: ServingError) -> None:
        """Fail all remaining requests, including those that run."""
        effects = DispatchEffects()
        with self._lock:
            self._state.fail_waiting(error, effects)
            self._state.fail_running(error, effects)
            self._notify(effects)
        self._carry_out(effects)

    def _next_batch(self, idle_since: float, effects: DispatchEffects) -> Batch | None:
        """Wait for a batch. None if the worker is to end, or if there are ``effects`` to carry out first."""
        scaling = self._state.scaling
        while True:
            if scaling is not None and scaling.instances.has_spare_thread:
                return None
            planned = self._plan(idle_since, effects)
            if isinstance(planned, Batch):
                return planned
            if effects.failed or effects.admitted or effects.wakes_others or effects.instances:
                return None
            if self._state.closed and self._state.exhausted:
                return None
            self._idle_workers += 1
            self._work.wait(None if math.isinf(planned.time) else planned.time - self._clock())
            self._idle_workers -= 1

    def _is_dismissed(self) -> bool:
        """Return whether the calling worker is one too many; it is then counted as ended."""
        scaling = self._state.scaling
        if scaling is None or not scaling.instances.has_spare_thread:
            return False
        scaling.instances.dismiss()
        if self._state.waiting.count:
            # It may have been this one that was woken.
            self._work.notify()
        return True

    def _plan(self, idle_since: float, effects: DispatchEffects, *, only_short: bool = False) -> Batch | WaitUntil:
        try:
            return self._state.next_batch(self._clock(), idle_since, effects, only_short=only_short)
        except Exception:
            # No request may hang because planning fails, and the worker must survive.
            _logger.exception("planning a batch failed; the waiting requests fail too")
            self._state.fail_waiting(InferenceFailedError(), effects)
            return WaitUntil(time=math.inf, requests=1, rows=1)

    def _notify(self, effects: DispatchEffects) -> None:
        if effects.wake_worker and self._idle_workers:
            self._work.notify()
        if self._state.closed:
            self._notify_drained()

    def _notify_drained(self) -> None:
        if self._state.drained:
            self._drained.notify_all()

    def _carry_out(self, effects: DispatchEffects) -> None:
        for request in effects.admitted:
            self._replies.admitted(request)
        for request, error in effects.failed:
            self._replies.fail(request, error)
        if effects.fails_running:
            self._on_running_settled()
        if effects.wakes_others:
            self._state.cores.wake_others()
        if effects.instances is not None and self._state.scaling is not None:
            self._state.scaling.instances.changed(effects.instances)
        if effects.opens_one_core and self._state.one_core is not None:
            self._state.one_core.open()
        for when in effects.timers_at:
            self._poll_thread.call_at(when, self._expire)

    def _wake_worker(self) -> None:
        with self._lock:
            self._work.notify()

    def _expire(self) -> None:
        effects = DispatchEffects()
        with self._lock:
            self._state.expire(self._clock(), effects)
            self._notify(effects)
        self._carry_out(effects)
