"""One request of a stream, from its message to its outcome."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Generic, NamedTuple

from inferd.api.admission import rejected_rows
from inferd.api.codec import Request
from inferd.api.model_waits import Waited
from inferd.api.request_decoder import IncomingRequest
from inferd.api.status import StatusTable
from inferd.batching.request import FailedRunError, InferenceRequest, InferenceResult, Outcome, Reply
from inferd.call_context import Generated
from inferd.errors import ColdModelError, ServingError
from inferd.models.version import ModelVersion
from inferd.observability.stream_results import StreamResult
from inferd.observability.timing import Stages
from inferd.security.authorization.policy import Grant
from inferd.security.authorization.quota import Quota


class ColdRequest(NamedTuple):
    """A request whose model must be loaded first: the error of the lookup, its reply handle, and its waits so far."""

    error: ColdModelError
    reply: Reply
    waited: Waited


class StreamRequest(Generic[Request]):
    """One request of a stream.

    ``cold`` is set if its model must be loaded first; ``withdraw`` then ends the wait for that. ``model`` and
    ``inference`` are None for a request that was rejected before it was submitted, ``stages`` if nothing records them,
    ``grant`` if the caller may do anything. ``quota`` is to be released when the request is no longer open; it changes
    under the stream's lock.

    A request to a language model has no ``inference``, but ``begin``, which begins to generate, on the poll thread;
    ``withdraw`` then ends that, and ``generated`` records its output.
    """

    __slots__ = (
        "begin",
        "cold",
        "generated",
        "grant",
        "incoming",
        "inference",
        "model",
        "quota",
        "stages",
        "withdraw",
    )

    def __init__(self, incoming: IncomingRequest[Request]) -> None:
        self.incoming = incoming
        self.model: ModelVersion | None = None
        self.inference: InferenceRequest | None = None
        self.grant: Grant | None = None
        self.stages: Stages | None = None
        self.quota: Quota | None = None
        self.cold: ColdRequest | None = None
        self.withdraw: Callable[[], None] | None = None
        self.begin: Callable[[], None] | None = None
        self.generated: Generated | None = None

    def mark_waited(self, load_s: float) -> None:
        """Count the time that the request, which is ready now, has waited for its model as that."""
        if self.inference is not None:
            # Its deadline counts from its arrival, but the wait is no time of decoding.
            self.inference.received_at = monotonic()
        if self.stages is not None:
            self.stages.load_s = load_s

    def close(self, outcome: Outcome | None = None) -> None:
        """Release the quota; called once, under the stream's lock. ``outcome`` is None if the stream has ended."""
        if self.quota is not None:
            self.quota.release(rejected_rows(self.inference, outcome))

    def result(self, outcome: Outcome | None, statuses: StatusTable) -> StreamResult:
        """Return ``outcome`` as the listeners of the stream's results take it."""
        stages = self.stages or Stages()
        status, error = "OK", ""
        if isinstance(outcome, ServingError):
            status, error = statuses.status_of(outcome).code.name, outcome.message
        if isinstance(outcome, InferenceResult | FailedRunError):
            stages.queue_s, stages.batch = outcome.queue_s, outcome.timing
        return StreamResult(
            request_id=self.incoming.request_id,
            model=self.model.name if self.model else "",
            version=self.model.version if self.model else "",
            rows=self.inference.rows if self.inference else 0,
            status=status,
            error=error,
            stages=stages,
            generated=self.generated,
        )


class Countdown:
    """Calls ``action`` once it has been called ``count`` times, from any threads."""

    __slots__ = ("_action", "_count", "_lock")

    def __init__(self, count: int, action: Callable[[], None]) -> None:
        self._count = count
        self._action = action
        self._lock = threading.Lock()

    def __call__(self) -> None:
        """Count one call."""
        with self._lock:
            self._count -= 1
            last = self._count == 0
        if last:
            self._action()
