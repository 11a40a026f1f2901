"""A model behind the server's own queue: workers on the virtual clock that take, run and retire batches."""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.simulation.calls import Call, End, Ended
from benchmarks.simulation.costs import Cost
from benchmarks.simulation.loop import Cores, Loop, Task
from inferd.batching.batcher import FullQueueCheck
from inferd.batching.idle_cores import IdleCores
from inferd.batching.instances import Instances
from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.queued import Principal
from inferd.batching.request import (
    Batch,
    BatchTiming,
    DispatchEffects,
    InferenceRequest,
    InferenceResult,
    InstanceChange,
    Outcome,
    Reply,
)
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings
from inferd.errors import DeadlineExceededError, OverloadedError

_BYTES_PER_ROW = 400
_TIMING = BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=0)


@dataclass(slots=True)
class Ran:
    """A batch that ran: what its requests had waited on average, the rows it left waiting, those that expired in it."""

    started_at: float
    rows: int
    work_s: float
    waited_s: float
    left_rows: int
    calls: list[Call]
    expired_rows: int = 0


class _Worker:
    """A worker that waits or runs; ``turn`` tells its latest timer from older ones."""

    __slots__ = ("idle_since", "turn")

    def __init__(self, now: float) -> None:
        self.idle_since = now
        self.turn = 0


class Model:
    """Drives a `QueueState` as `RequestQueue`, `Executor` and `RunGuard` do, without threads.

    With ``instances`` the number of workers follows the load; ``workers`` then is how many have cores of their own.
    """

    def __init__(
        self,
        loop: Loop,
        cost: Cost,
        *,
        max_rows: int,
        cores: Cores | None = None,
        settings: QueueSettings | None = None,
        max_wait_s: float = 0.01,
        workers: int = 1,
        instances: Instances | None = None,
        threads: int = 1,
        idle_cores: IdleCores | None = None,
        name: str = "m",
        seed: int = 0,
    ) -> None:
        settings = settings or QueueSettings()
        self.loop = loop
        self.cost = cost
        self.max_rows = max_rows
        self.state = QueueState(
            name=name,
            settings=settings,
            policy=policy_for(settings),
            rules=BatchRules(max_rows=max_rows, max_wait_s=max_wait_s),
            workers=instances.count if instances else workers,
            parallel_runs=workers,
            instances=instances,
            cores=None if idle_cores is None else idle_cores.register(),
            jitter=random.Random(f"{seed} {name} jitter").random,
        )
        self._full_queue_check = FullQueueCheck(self.state)
        self.state.cores.wake = lambda: loop.when_idle(self._wake_now)
        self.batches: list[Ran] = []
        #: When the number of instances changed, and how.
        self.changes: list[tuple[float, InstanceChange]] = []
        #: Rows that were dispatched though their callers had gone.
        self.dropped_rows = 0
        self._cores = cores or Cores(loop, workers)
        self._threads = threads
        self._workers = workers
        self._chance = random.Random(f"{seed} {name}")
        self._idle = deque(_Worker(loop.now) for _ in range(instances.count if instances else workers))
        self._runs: dict[Batch, tuple[Task, Callable[[], None]]] = {}
        self._requests: dict[Call, InferenceRequest] = {}
        self._open: dict[InferenceRequest, Call] = {}
        self._wake_due = False

    @property
    def capacity(self) -> float:
        """Rows per second with full batches."""
        return self.cost.capacity(self.max_rows) * self._workers

    # The poll thread.

    def submit(self, call: Call, ended: Ended) -> None:
        """Implement `Server`."""
        refusal = self._full_queue_check.error(
            call.priority, call.deadline, self.loop.now, principal=call.principal, weight=call.weight
        )
        if refusal is not None:
            ended(call, *_meaning(refusal))
            return
        request = self._request(call, ended)
        self._requests[call], self._open[request] = request, call
        effects = DispatchEffects()
        batch = self.state.offer(request, self.loop.now, effects)
        self._wake(effects)
        self._do(effects)
        if not request.reply.done():
            call.admitted_at = self.loop.now
        if batch is not None:
            self._run(batch, None)

    def cancel(self, call: Call) -> None:
        """Implement `Server`."""
        request = self._requests.pop(call, None)
        if request is None or not request.reply.withdraw():
            return
        del self._open[request]
        effects = DispatchEffects()
        self.state.remove(request, self.loop.now, effects)
        self._wake(effects)
        self._do(effects)

    def _request(self, call: Call, ended: Ended) -> InferenceRequest:
        def outcome(result: Outcome) -> None:
            del self._open[self._requests.pop(call)]
            ended(call, *_meaning(result))

        return InferenceRequest(
            inputs={},
            outputs=(),
            rows=call.rows,
            nbytes=call.rows * _BYTES_PER_ROW,
            stack_key=0,
            reply=Reply(outcome),
            received_at=self.loop.now,
            deadline=call.deadline,
            priority=call.priority,
            principal=Principal(call.principal, call.weight),
        )

    def _wake(self, effects: DispatchEffects) -> None:
        # Once everything of this time has been taken in, as the poll thread does.
        if effects.wake_worker and self._idle and not self._wake_due:
            self._wake_due = True
            self.loop.when_idle(self._wake_now)

    def _wake_now(self) -> None:
        self._wake_due = False
        if self._idle:
            self._plan(self._idle.popleft())

    def _do(self, effects: DispatchEffects) -> None:
        for request, error in effects.failed:
            request.reply.deliver(error)
        for when in effects.timers_at:
            self.loop.at(when, self._expire)
        if effects.fails_running:
            self._end_abandoned()
        if effects.instances is not None:
            self.changes.append((self.loop.now, effects.instances))
            if effects.instances.starts_thread:
                self._plan(_Worker(self.loop.now))

    def _expire(self) -> None:
        effects = DispatchEffects()
        self.state.expire(self.loop.now, effects)
        self._wake(effects)
        self._do(effects)

    def _end_abandoned(self) -> None:
        for batch in [*self._runs]:
            if all(request.reply.done() for request in batch.requests):
                task, done = self._runs[batch]
                batch.cut_off = True
                self._cores.stop(task)
                done()

    # The workers.

    def _plan(self, worker: _Worker) -> None:
        worker.turn += 1
        if self._is_dismissed():
            return
        effects = DispatchEffects()
        planned = self.state.next_batch(self.loop.now, worker.idle_since, effects)
        if isinstance(planned, Batch):
            self._run(planned, worker)
        else:
            self._idle.append(worker)
            if not math.isinf(planned.time):
                turn = worker.turn
                self.loop.at(planned.time, lambda: self._held_long_enough(worker, turn))
        self._wake(effects)
        self._do(effects)

    def _is_dismissed(self) -> bool:
        instances = None if self.state.scaling is None else self.state.scaling.instances
        if instances is None or not instances.has_spare_thread:
            return False
        instances.dismiss()
        if self.state.waiting.count and self._idle:
            self._plan(self._idle.popleft())
        return True

    def _held_long_enough(self, worker: _Worker, turn: int) -> None:
        if worker in self._idle and worker.turn == turn:
            self._idle.remove(worker)
            self._plan(worker)

    def _run(self, batch: Batch, worker: _Worker | None) -> None:
        now = self.loop.now
        live = [request for request in batch.requests if not request.reply.done() and request.deadline > now]
        self.dropped_rows += batch.rows - sum(request.rows for request in live)
        for request in batch.requests:
            if request.deadline <= now:
                request.reply.deliver(DeadlineExceededError("the deadline passed before the model ran"))
        if not live:
            self._retire(batch, worker)
            return
        rows = sum(request.rows for request in live)
        run = self.cost.draw(rows, self._chance)
        waited_s = sum(now - request.enqueued_at for request in live) / len(live)
        calls = [self._open[request] for request in live]
        ran = Ran(now, rows, run.work_s, waited_s, self.state.waiting.rows, calls)
        self.batches.append(ran)

        def done() -> None:
            del self._runs[batch]
            batch.answering = True
            if not batch.cut_off:
                batch.run_s, batch.cpu_s = self.loop.now - now, run.work_s
            ran.expired_rows = sum(request.rows for request in live if request.deadline < self.loop.now)
            for request in live:
                request.reply.deliver(InferenceResult({}, _TIMING, now - request.enqueued_at))
            self._retire(batch, worker)

        task = self._cores.start(run.work_s, done, threads=self._threads, stalled_s=run.stalled_s)
        self._runs[batch] = task, done

    def _retire(self, batch: Batch, worker: _Worker | None) -> None:
        self.state.retire(batch, self.loop.now)
        if worker is not None:
            worker.idle_since = self.loop.now
            self._plan(worker)
        self.state.cores.wake_others()


def _meaning(result: Outcome) -> tuple[End, float | None]:
    if isinstance(result, InferenceResult):
        return End.OK, None
    if isinstance(result, OverloadedError):
        return End.SHED if result.reason == "SHED" else End.REFUSED, result.retry_after_s
    return End.EXPIRED, None
