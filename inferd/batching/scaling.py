"""Applies the number of instances that `Instances` decides to the rules, forecast and limits of a queue."""

from dataclasses import replace

from inferd.batching.adaptive import AdaptiveRules
from inferd.batching.forecast import Forecast
from inferd.batching.instances import Instances
from inferd.batching.planner import WaitUntil
from inferd.batching.request import Batch, DispatchEffects, InferenceRequest, InstanceChange
from inferd.batching.waiting import WaitingRequests


class InstanceScaling:
    """Reports dispatched batches to `Instances`, and applies its decisions to rules, forecast and limits.

    At most ``parallel_runs`` instances share waiting rows. Not thread-safe: guarded by the lock of the `RequestQueue`.
    """

    def __init__(
        self,
        instances: Instances,
        rules: AdaptiveRules,
        forecast: Forecast,
        waiting: WaitingRequests[InferenceRequest],
        parallel_runs: int,
    ) -> None:
        self.instances = instances
        self._rules = rules
        self._forecast = forecast
        self._waiting = waiting
        self._parallel_runs = parallel_runs
        self._expect(1.0)

    def evaluate(self, now: float, effects: DispatchEffects) -> None:
        """Reduce the number of instances if some are not needed; before a worker takes its next batch."""
        self._apply(self.instances.evaluate(now), effects)

    def dispatched(self, batch: Batch, now: float, idle_since: float, effects: DispatchEffects) -> None:
        """Add an instance if it is needed, after a worker that was idle since ``idle_since`` took ``batch``."""
        # Scavengers may wait, and short runs are done one at a time, by the poll thread.
        if batch.is_online and not self._rules.run_cost.short.are_short:
            would_share = self._rules.would_share(batch.rows, len(batch.requests))
            self._apply(self.instances.dispatched(batch, now, idle_since, would_share=would_share), effects)

    def no_thread(self, now: float, effects: DispatchEffects) -> None:
        """Remove the instance that was added, as the system gives no thread for it."""
        self._apply(self.instances.no_thread(now), effects)

    def until(self, plan: WaitUntil) -> WaitUntil:
        """Return ``plan``, waiting no longer than until the number of instances is to be evaluated."""
        return plan if plan.time <= self.instances.evaluate_at else replace(plan, time=self.instances.evaluate_at)

    def _apply(self, change: InstanceChange | None, effects: DispatchEffects) -> None:
        if change is None:
            return
        self._rules.set_parallel_runs(min(self._parallel_runs, change.count))
        self._expect(change.factor)
        effects.instances = change

    def _expect(self, factor: float) -> None:
        self._forecast.set_workers(self.instances.count, soon=self.instances.may_be, factor=factor)
        self._waiting.level_rows = self._forecast.least_rows
