"""The errors of the requests that a queue rejects at present: texts, reasons and retry hints."""

from typing import Any, Protocol

from inferd.batching.waiting import WaitingRequests
from inferd.errors import ModelUnavailableError, OverloadedError, Retry

#: Retry delay for a model whose runs hang: when they will end is unknown.
_STUCK_HINT_S = 5.0


class RetryHints(Protocol):
    """Knows how fast a queue drains."""

    def retry_after_s(self, waiting_rows: int, /) -> float:
        """Return after which time a retry is likely to be admitted."""
        ...


class Refusals:
    """The errors of the requests that the queue of the model called ``name`` rejects at present."""

    def __init__(self, name: str, waiting: WaitingRequests[Any], hints: RetryHints) -> None:
        self._name = name
        self._waiting = waiting
        self._hints = hints

    def overloaded(self, reason: str, detail: str = "") -> OverloadedError:
        """Return the error for a full queue; ``detail`` is appended to the message."""
        return OverloadedError(
            f'the queue of model "{self._name}" is full: {self._waiting.describe()}{detail}',
            retry_after_s=self._hints.retry_after_s(self._waiting.rows),
            reason=reason,
        )

    def priority_full(self, priority: int) -> OverloadedError:
        """Return the error for a full queue of one priority."""
        rows = self._waiting.rows_of(priority)
        return OverloadedError(
            f'the queue of model "{self._name}" is full for priority {priority}: {rows} of '
            f"{self._waiting.priority_rows[priority]} rows wait",
            retry_after_s=self._hints.retry_after_s(rows),
            reason="QUEUE_FULL",
        )

    def too_late(self, detail: str = "", *, in_vain: bool = False) -> OverloadedError:
        """Return the error for a request that would miss its deadline; ``detail`` is appended to the message.

        A retry is ``in_vain`` if the request would be late even alone: an idle server would reject it again.
        """
        alone = " even alone" if in_vain else ""
        error = OverloadedError(
            f'model "{self._name}" cannot answer within the deadline{alone}: {self._waiting.describe()}{detail}',
            retry_after_s=None if in_vain else self._hints.retry_after_s(self._waiting.rows),
            reason="DEADLINE_TOO_CLOSE",
        )
        if in_vain:
            error.retry = Retry.NEVER
        return error

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
