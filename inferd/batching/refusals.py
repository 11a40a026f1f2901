"""Why a queue rejects requests: errors for an overload, and for requests that no queue of these limits takes."""

from inferd.batching.forecast import Forecast
from inferd.batching.request import InferenceRequest
from inferd.batching.waiting import WaitingRequests
from inferd.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ModelUnavailableError,
    OverloadedError,
    ServingError,
)

#: Retry delay for a model whose runs hang: when they will end is unknown.
_STUCK_HINT_S = 5.0


class Refusals:
    """The errors of the requests that the queue of the model called ``name`` rejects at present."""

    def __init__(self, name: str, waiting: WaitingRequests, forecast: Forecast) -> None:
        self._name = name
        self._waiting = waiting
        self._forecast = forecast

    def overloaded(self, reason: str, detail: str = "") -> OverloadedError:
        """Return the error for a full queue; ``detail`` is appended to the message."""
        return OverloadedError(
            f'the queue of model "{self._name}" is full: {self._waiting.describe()}{detail}',
            retry_after_s=self._forecast.retry_after_s(self._waiting.rows),
            reason=reason,
        )

    def too_late(self) -> OverloadedError:
        """Return the error for a request that would miss its deadline."""
        return self.overloaded(reason="DEADLINE_TOO_CLOSE", detail=", more than its deadline allows")

    def shed(self) -> OverloadedError:
        """Return the error for a request that is evicted."""
        return self.overloaded(reason="SHED", detail=", and another request took the place")

    def stuck(self) -> OverloadedError:
        """Return the error while too many runs hang."""
        return OverloadedError(
            f'model "{self._name}" takes no requests at present: too many of its runs have not ended in time',
            retry_after_s=_STUCK_HINT_S,
            reason="RUNS_STUCK",
        )

    def closed(self) -> ModelUnavailableError:
        """Return the error while the model is being unloaded."""
        return ModelUnavailableError(f'model "{self._name}" is being unloaded and takes no more requests')


def refusal(request: InferenceRequest, now: float, waiting: WaitingRequests) -> ServingError | None:
    """Return why ``request`` can never be admitted to a queue with the limits of ``waiting``; None if it can."""
    if request.deadline <= now:
        return DeadlineExceededError("the deadline passed before the request reached the queue")
    if request.rows > waiting.max_rows:
        return _too_large(request.rows, waiting.max_rows, "rows")
    if request.nbytes > waiting.max_bytes:
        return _too_large(request.nbytes, waiting.max_bytes, "bytes")
    if not 1 <= request.priority <= waiting.priority_levels + 1:
        levels = waiting.priority_levels
        return InvalidInputError(
            f"priority: expected 1 to {levels}, or {levels + 1} for a scavenger, got {request.priority}"
        )
    return None


def _too_large(given: int, bound: int, unit: str) -> InvalidInputError:
    return InvalidInputError(
        f"request: expected at most {bound} {unit}, the bound of the whole queue, got {given}", field="inputs"
    )
