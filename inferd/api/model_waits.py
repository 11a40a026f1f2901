"""Keep requests whose on-demand model is not loaded, and continue them when it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic

from inferd.api.admission import hold_quota
from inferd.call_context import LOAD_WAIT_KEY
from inferd.config.settings import QueueSettings
from inferd.errors import ColdModelError, ServingError
from inferd.models.on_demand import Fail, OnDemandLoads
from inferd.models.registry import ModelRegistry
from inferd.models.states import ModelState
from inferd.rpc import Call

#: Loads that a request waits for. A second one is rare: the model was evicted before the request came to its queue.
_MOST_WAITS = 3


@dataclass(frozen=True, slots=True)
class Waited:
    """The waits of a request so far: for ``loads`` of its model, ``load_s`` in all."""

    received_at: float
    loads: int = 0
    load_s: float = 0.0


class ModelWaits:
    """Lets requests wait for on-demand models. Poll thread only.

    Whether the caller may use the model has been decided before: others never cause a load, and neither do callers
    whose quota is used up. A request that waits counts as one of theirs.
    """

    def __init__(self, loads: OnDemandLoads, registry: ModelRegistry) -> None:
        self._loads = loads
        self._registry = registry

    def add(
        self,
        call: Call,
        error: ColdModelError,
        waited: Waited,
        *,
        timeout_s: float | None = None,
        go_on: Callable[[Waited], None],
        fail: Fail,
    ) -> Callable[[], None]:
        """Load the model of ``error`` for a request of ``call``, and let it ``go_on`` then; or ``fail``.

        ``timeout_s`` is that of the request, if it has one. Returns a function that withdraws the request.
        """
        call.context.model, call.context.version = error.model, error.version
        try:
            model = self._registry.find(error.model, error.version)
            # After a load that left this version FAILED, or cold again and again, another one would end no better.
            if waited.loads and (model.state is ModelState.FAILED or waited.loads >= _MOST_WAITS):
                raise error
            refund = hold_quota(call, error.model)
        except ServingError as refusal:
            fail(refusal)
            return _nothing
        began_at = monotonic()

        def end(failure: ServingError | None) -> None:
            refund()
            if failure is not None:
                fail(failure)
            else:
                go_on(_waited_since(began_at, call, waited))

        deadline = _deadline(model.settings.queue, timeout_s, waited.received_at, call.deadline)
        withdraw = self._loads.wait(error.model, deadline, partial(end, None), end)

        def withdrawn() -> None:
            withdraw()
            refund()

        return withdrawn

    def drain(self, error: ServingError) -> None:
        """Fail every request that waits, and those that come to wait."""
        self._loads.drain(error)


def _deadline(queue: QueueSettings, timeout_s: float | None, received_at: float, call_deadline: float) -> float:
    """Return until when a request may wait; its priority, which may have timeouts of its own, is not known yet."""
    default_s = queue.default_timeout_ms / 1000 or math.inf
    if not queue.allow_timeout_override:
        timeout_s = default_s
    elif timeout_s is None:
        timeout_s = default_s if call_deadline == math.inf else math.inf
    return min(call_deadline, received_at + timeout_s)


def _waited_since(began_at: float, call: Call, before: Waited) -> Waited:
    """Count another load that a request of ``call`` has waited for, also for the access log."""
    wait_s = monotonic() - began_at
    earlier_ms = call.annotations.get(LOAD_WAIT_KEY, 0.0)
    assert isinstance(earlier_ms, float), "written here only"
    call.annotations[LOAD_WAIT_KEY] = round(earlier_ms + wait_s * 1000, 3)
    return Waited(before.received_at, before.loads + 1, before.load_s + wait_s)


def _nothing() -> None:
    """Withdraw a request that has failed."""
