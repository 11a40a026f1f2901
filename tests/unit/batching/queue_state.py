"""The state of a queue, with a time that the test sets."""

from inferd.batching.planner import BatchRules
from inferd.batching.policies import policy_for
from inferd.batching.request import DispatchEffects
from inferd.batching.state import QueueState
from inferd.config.settings import QueueSettings


class Queue:
    """A queue state at a time that the test sets, with shorthands for offering and taking."""

    def __init__(self, max_batch=8, max_wait_s=0.0, workers=1, parallel_runs=1, **settings):
        queue = QueueSettings(**({"max_rows": 4} | settings))
        self.state = QueueState(
            name="m",
            settings=queue,
            policy=policy_for(queue),
            rules=BatchRules(max_rows=max_batch, max_wait_s=max_wait_s),
            workers=workers,
            parallel_runs=parallel_runs,
            jitter=lambda: 0.0,
        )
        self.now = 100.0

    def offer(self, *callers):
        effects = DispatchEffects()
        for caller in callers:
            self.state.offer(caller.request, self.now, effects)
        return effects

    def run_now(self, caller):
        return self.state.offer(caller.request, self.now, DispatchEffects())

    def take(self, idle_since=0.0, *, only_short=False):
        effects = DispatchEffects()
        return self.state.next_batch(self.now, idle_since, effects, only_short=only_short), effects

    def remove(self, caller):
        effects = DispatchEffects()
        self.state.remove(caller.request, self.now, effects)
        return effects

    def expire(self):
        effects = DispatchEffects()
        self.state.expire(self.now, effects)
        return effects


def failed(effects):
    return {request: type(error) for request, error in effects.failed}
