"""Requests that wait until their on-demand model is loaded."""

from collections.abc import Callable

from inferd.batching.ports import Clock
from inferd.errors import ServingError

CallSoon = Callable[[Callable[[], None]], None]


class OnDemandLoads:
    """The requests that wait for on-demand models; asks for one load of a model however many wait.

    ``ask`` makes the manager load a model, which calls `ended` once for that. ``expected_s`` is how long that takes in
    all, 0 if nothing is known. Poll thread, except `ended` and `waiting`.
    """

    def __init__(
        self,
        *,
        ask: Callable[[str], None],
        expected_s: Callable[[str], float],
        call_soon: CallSoon,
        clock: Clock,
    ) -> None:
        self._ask = ask
        self._expected_s = expected_s
        self._call_soon = call_soon
        self._clock = clock

    def wait(
        self, name: str, deadline: float, resume: Callable[[], None], fail: Callable[[ServingError], None]
    ) -> Callable[[], None]:
        """Call ``resume`` when the model is loaded, or ``fail``; return a function that withdraws."""
        raise NotImplementedError

    def ended(self, name: str, error: ServingError | None) -> None:
        """Take note that a load that was asked for has ended; ``error`` is for those that wait. Any thread."""
        raise NotImplementedError

    def waiting(self, name: str) -> int:
        """Return how many requests wait for a model. Any thread."""
        raise NotImplementedError
