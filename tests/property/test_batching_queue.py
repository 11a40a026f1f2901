"""The queue against a model of it, over any sequence of events and under every policy."""

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.request import Batch, DispatchEffects
from inferd.batching.state import QueueState
from inferd.batching.waiting import SLACK_S
from inferd.config.settings import Backpressure, QueueSettings
from inferd.errors import DeadlineExceededError, InferenceFailedError, ModelUnavailableError, OverloadedError
from tests.fakes import Caller

_MAX_BYTES, _MAX_BATCH, _MAX_BLOCKED, _CALLER_RUNS, _WORKERS = 1024, 4, 3, 2, 2
_SCAVENGER = 4
_WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}


class _OneCoreSession:
    runs = _WORKERS
    is_open = False


class QueueMachine(RuleBasedStateMachine):
    """Offers, takes, retires, cancels and lets time pass; where each request is, is kept here as well."""

    @initialize(
        policy=st.sampled_from(Backpressure),
        max_wait_s=st.sampled_from([0.0, 0.05]),
        row_s=st.sampled_from([0.0, 0.1]),
        max_rows=st.sampled_from([8, 24]),
        low_share=st.sampled_from([0.0, 0.5]),
        one_core=st.booleans(),
    )
    def begin(self, policy, max_wait_s, row_s, max_rows, low_share, one_core):
        self.settings = QueueSettings(
            policy=policy,
            max_rows=max_rows,
            low_priority_share=low_share,
            max_bytes=_MAX_BYTES,
            max_blocked=_MAX_BLOCKED,
            caller_runs_limit=_CALLER_RUNS,
        )
        self.state = QueueState(
            name="m",
            settings=self.settings,
            policy=policy_for(self.settings),
            rules=BatchRules(max_rows=_MAX_BATCH, max_wait_s=max_wait_s),
            workers=1 if one_core else _WORKERS,
            parallel_runs=1 if one_core else _WORKERS,
        )
        self.late_at = -math.inf
        self.one_core = _OneCoreSession() if one_core else None
        if self.one_core is not None:
            self.state.run_on_one_core(self.one_core, self.open_session, lambda: self.late_at)
        # With runs that take longer with each row, idle workers share what waits.
        self.row_s = row_s
        for number in range(64):
            rows = 1 + number % _MAX_BATCH
            self.state.rules.ran(rows, self.run_s(rows))
        self.now = 100.0
        self.poll_thread: list[float] = []
        self.callers = {}
        self.waiting: dict = {}
        self.blocked: dict = {}
        self.batches: list[Batch] = []
        self.cancelled: list[Caller] = []
        self.scavenged = False

    def open_session(self):
        self.one_core.is_open = True
        self.state.one_core.opened([(_MAX_BATCH, 0.01)])

    def run_s(self, rows):
        return 0.01 + rows * self.row_s

    def apply(self, effects):
        for request in effects.admitted:
            self.blocked.pop(request, None)
            self.waiting[request] = None
            request.reply.release()
        for request, error in effects.failed:
            self.waiting.pop(request, None)
            self.blocked.pop(request, None)
            request.reply.deliver(error)
        self.poll_thread.extend(effects.timers_at)

    @rule()
    def poll_thread_is_late(self):
        self.late_at = self.now

    @rule(
        rows=st.integers(1, 6),
        nbytes=st.integers(0, 600),
        priority=st.integers(1, _SCAVENGER),
        principal=st.sampled_from(sorted(_WEIGHTS)),
        key=st.sampled_from("ab"),
        timeout_s=st.sampled_from([0.0, 0.02, 0.3, 1.0, 2.0, 4.0, float("inf")]),
    )
    def offer(self, rows, nbytes, priority, principal, key, timeout_s):
        caller = Caller(
            rows=rows,
            nbytes=nbytes,
            priority=priority,
            principal=principal,
            weight=_WEIGHTS[principal],
            key=key,
            deadline=self.now + timeout_s,
        )
        request = caller.request
        self.callers[request] = caller
        lesser = any(other.priority > priority for other in self.waiting)
        waiting = self.state.waiting
        is_full = waiting.rows + rows > waiting.max_rows or waiting.nbytes + nbytes > waiting.max_bytes
        forecast = self.state.forecast
        if timeout_s > forecast.ample_s and rows <= _MAX_BATCH and waiting.rows + rows <= waiting.row_limit:
            # What is admitted without a forecast would be with one.
            assert not forecast.comes_too_late(request, waiting, self.state._running, self.now)
        effects = DispatchEffects()
        batch = self.state.offer(request, self.now, effects)
        if batch is not None:
            assert self.settings.policy is Backpressure.CALLER_RUNS
            self.batches.append(batch)
        elif request not in effects.admitted and all(request is not failed for failed, _ in effects.failed):
            assert self.settings.policy is Backpressure.BLOCK
            self.blocked[request] = None
        shed = [
            victim for victim, error in effects.failed if isinstance(error, OverloadedError) and victim is not request
        ]
        assert all(victim.priority >= priority for victim in shed)
        if self.settings.policy is Backpressure.SHED_OLDEST:
            # Beyond the row limit only requests of the same priority make room.
            assert not shed or (lesser and is_full) == (shed[0].priority > priority)
        else:
            assert not shed or priority < _SCAVENGER
            assert all(victim.priority == _SCAVENGER for victim in shed)
        self.apply(effects)

    @precondition(lambda self: sum(not batch.outside_queue for batch in self.batches) < _WORKERS)
    @rule()
    def take(self):
        effects = DispatchEffects()
        batch = self.state.next_batch(self.now, self.now, effects)
        # Requests that failed may have made room for blocked ones, which are in the batch already.
        self.apply(effects)
        if effects.opens_one_core:
            self.state.one_core.open()
        runs = any(not running.outside_queue for running in self.batches)
        if not isinstance(batch, Batch) and self.waiting and not runs:
            assert batch.time < math.inf, "nobody else would take it"
        if isinstance(batch, Batch):
            self.check_choice(batch, admitted=set(effects.admitted))
            for request in batch.requests:
                del self.waiting[request]
            self.batches.append(batch)

    def check_choice(self, batch, admitted):
        assert all(request.deadline > self.now for request in batch.requests)
        assert batch.rows <= _MAX_BATCH or len(batch.requests) == 1
        first = batch.requests[0]
        online = [request for request in self.waiting if request.priority < _SCAVENGER and request not in admitted]
        if first.priority == _SCAVENGER:
            assert all(request.priority == _SCAVENGER for request in batch.requests)
            assert not online or (sum(request.rows for request in online) == 1 and not self.scavenged)
        else:
            alike = [request.priority for request in online if request.stack_key == first.stack_key]
            assert self.settings.low_priority_share or first.priority == min([first.priority, *alike])
        self.scavenged = first.priority == _SCAVENGER

    @precondition(lambda self: self.one_core)
    @rule(is_open=st.booleans())
    def open_or_release(self, is_open):
        if is_open:
            self.open_session()
        self.one_core.is_open = is_open

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def finish_a_batch(self, data):
        batch = self.batches.pop(data.draw(st.integers(0, len(self.batches) - 1)))
        for request in batch.requests:
            request.reply.deliver(InferenceFailedError())
        batch.run_s = self.run_s(batch.rows)
        self.state.retire(batch, self.now)

    @precondition(lambda self: any(caller.waits for caller in self.callers.values()))
    @rule(data=st.data())
    def cancel(self, data):
        unanswered = [caller for caller in self.callers.values() if not caller.request.reply.done()]
        if not unanswered:
            return
        caller = data.draw(st.sampled_from(unanswered))
        assert caller.request.reply.withdraw()
        self.cancelled.append(caller)
        self.waiting.pop(caller.request, None)
        self.blocked.pop(caller.request, None)
        effects = DispatchEffects()
        self.state.remove(caller.request, self.now, effects)
        self.apply(effects)

    @rule(seconds=st.sampled_from([0.01, 0.05, 0.4]))
    def let_time_pass(self, seconds):
        end = self.now + seconds
        while self.poll_thread and min(self.poll_thread) <= end:
            self.now = max(self.now, min(self.poll_thread))
            self.poll_thread.remove(min(self.poll_thread))
            effects = DispatchEffects()
            self.state.expire(self.now, effects)
            for request, error in effects.failed:
                # A blocked request takes the place, and perhaps that of a scavenger as well.
                is_evicted = request.priority > self.settings.priority_levels and error.reason == "SHED"
                assert is_evicted or isinstance(error, DeadlineExceededError)
            self.apply(effects)
        self.now = end

    @invariant()
    def the_bounds_hold(self):
        if not hasattr(self, "state"):
            return
        waiting = self.state.waiting
        assert waiting.rows == sum(request.rows for request in self.waiting) <= self.settings.max_rows
        assert waiting.nbytes == sum(request.nbytes for request in self.waiting) <= _MAX_BYTES
        assert len(self.blocked) <= _MAX_BLOCKED
        assert sum(request.nbytes for request in self.blocked) <= _MAX_BYTES
        assert sum(batch.outside_queue for batch in self.batches) <= _CALLER_RUNS

    @invariant()
    def nothing_is_lost_and_the_order_is_kept(self):
        if not hasattr(self, "state"):
            return
        served = list(self.state.waiting)
        assert len(served) == len(self.waiting)
        assert set(served) == set(self.waiting)
        assert [request.priority for request in served] == sorted(request.priority for request in served)
        for principal in _WEIGHTS:
            own = [request for request in served if request.principal.name == principal]
            assert own == sorted(own, key=lambda request: (request.priority, request.edf_key))
        assert self.state.present == len(self.waiting) + len(self.blocked) + sum(len(b.requests) for b in self.batches)
        assert self.state.running_rows == sum(batch.rows for batch in self.batches)
        first = next(iter(self.blocked), None)
        assert first is None or not self.state.waiting.fits(first)

    @invariant()
    def nobody_waits_long_past_the_deadline(self):
        if not hasattr(self, "state"):
            return
        for request in [*self.waiting, *self.blocked]:
            assert request.deadline >= self.now - SLACK_S

    @invariant()
    def timers_are_few(self):
        if hasattr(self, "state"):
            # One more for each nearer deadline.
            assert len(self.poll_thread) <= 6

    def teardown(self):
        """Close and drain: every request has had exactly one outcome, or was withdrawn and had none."""
        if not hasattr(self, "state"):
            return
        self.state.close()
        for batch in self.batches:
            for request in batch.requests:
                request.reply.deliver(InferenceFailedError())
            self.state.retire(batch, self.now)
        for _ in range(len(self.callers) + 1):
            effects = DispatchEffects()
            batch = self.state.next_batch(self.now, self.now, effects)
            self.apply(effects)
            if isinstance(batch, Batch):
                for request in batch.requests:
                    request.reply.deliver(InferenceFailedError())
                self.state.retire(batch, self.now)
        assert self.state.drained
        for caller in self.callers.values():
            assert len(caller.outcomes) == (caller not in self.cancelled)
            assert caller.released
        late = Caller()
        effects = DispatchEffects()
        self.state.offer(late.request, self.now, effects)
        assert isinstance(effects.failed[0][1], ModelUnavailableError)


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase
