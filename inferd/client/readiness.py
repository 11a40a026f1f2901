"""How long to go on asking whether a server is ready, and when to ask again."""

from collections.abc import Callable
from time import monotonic

from inferd.client.errors import DeadlineExceeded, InferdError, NotFound, Overloaded, Unavailable
from inferd.client.results import ModelInfo, ModelState
from inferd.health_check import HealthStatus, status_of

#: Errors that may be over later, so that who waits for readiness asks again.
PASSING = (Unavailable, NotFound, DeadlineExceeded, Overloaded)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_GROWTH = 1.5


class Patience:
    """One wait for a server, or for a model of it, to be ready: `left_s`, ask, `not_ready`, `pause_s`, and again."""

    def __init__(self, timeout_s: float | None, clock: Callable[[], float] = monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._until = None if timeout_s is None else clock() + timeout_s
        self._pause_s = _FIRST_PAUSE_S
        self._why = ""
        self._error: InferdError | None = None

    def left_s(self) -> float | None:
        """Return how much time is left; None for without end."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def not_ready(self, why: str | InferdError) -> None:
        """Note what stands in the way. That the time was up while it was asked is not among it."""
        if isinstance(why, DeadlineExceeded) and self._why:
            return
        self._why = str(why)
        self._error = why if isinstance(why, InferdError) else None

    def pause_s(self) -> float:
        """Return how long to wait before asking again. Raises `DeadlineExceeded` if no time is left."""
        left_s = self.left_s()
        if left_s == 0:
            raise DeadlineExceeded(
                f"not ready within {self._timeout_s:g} s: {self._why}",
                request_id="" if self._error is None else self._error.request_id,
            ) from self._error
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * _GROWTH, _LONGEST_PAUSE_S)
        return pause_s if left_s is None else min(pause_s, left_s)


def server_obstacle(answer: bytes) -> str:
    """Say why a server that gave this answer of the health service is not ready; empty if it is."""
    status = status_of(answer)
    return "" if status is HealthStatus.SERVING else f"the server's health is {status.name}"


def model_obstacle(model: ModelInfo) -> str:
    """Say why a model is not ready; empty if it is."""
    if model.state is ModelState.READY:
        return ""
    return f'model "{model.name}" version {model.version} is {model.state}' + (model.reason and f": {model.reason}")
