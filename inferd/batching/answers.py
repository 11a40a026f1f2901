"""Answers requests and counts the outcomes."""

import logging
from collections.abc import Callable

from inferd.batching.ports import BatchReport, Clock, Observer
from inferd.batching.request import InferenceRequest, InferenceResult
from inferd.batching.statistics import Statistics
from inferd.errors import OverloadedError, ServingError

_logger = logging.getLogger("inferd.batching")

_OBSERVER_FAILED = "an observer failed"
_RECEIVER_FAILED = "the receiver of an outcome failed"


class Answers:
    """Delivers outcomes to replies and reports to the observer and the statistics.

    Any thread may call, with no lock held. Exceptions of observers and receivers are logged and go no further. A
    request that already has its outcome is skipped.
    """

    def __init__(self, *, clock: Clock, observer: Observer, statistics: Statistics) -> None:
        self._clock = clock
        self._observer = observer
        self._statistics = statistics

    def offered(self, request: InferenceRequest) -> None:
        """Count ``request`` before it is admitted or rejected."""
        # Not through `_observe`: this runs for each request.
        try:
            self._observer.offered(request.rows)
        except Exception:  # see there
            _logger.exception(_OBSERVER_FAILED)

    def caller_ran(self) -> None:
        """Count a request that runs outside the queue."""
        self._observe(self._observer.caller_ran)

    def batch_done(self, report: BatchReport) -> None:
        """Report a run, before its requests are answered."""
        # Not through `_observe`: this runs for each batch.
        try:
            self._observer.batch_done(report)
        except Exception:  # see there
            _logger.exception(_OBSERVER_FAILED)

    def run_ended(self, reason: str) -> None:
        """Report a run that is ended early."""
        self._observe(self._observer.run_ended, reason)

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Report that one request of a batch ran again alone."""
        self._statistics.checked(mismatch=mismatch)
        try:
            self._observer.checked(run_s, mismatch=mismatch)
        except Exception:  # as in `_observe`
            _logger.exception(_OBSERVER_FAILED)

    def answered(self, encode_s: float) -> None:
        """Report how long answering the requests of a run took."""
        try:
            self._observer.answered(encode_s)
        except Exception:  # as in `_observe`
            _logger.exception(_OBSERVER_FAILED)

    def fail(self, request: InferenceRequest, error: ServingError) -> None:
        """Answer ``request`` with ``error``."""
        if request.reply.done():
            return
        self._statistics.failed(self._clock() - request.received_at)
        if isinstance(error, OverloadedError):
            self._observe(self._observer.refused, error.reason, request.rows)
        self._deliver(request, error)

    def succeed(self, request: InferenceRequest, result: InferenceResult) -> None:
        """Answer ``request`` with ``result``."""
        # Not through `_deliver`: this runs for each request.
        try:
            request.reply.deliver(result)
        except Exception:  # see there
            _logger.exception(_RECEIVER_FAILED)

    def admitted(self, request: InferenceRequest) -> None:
        """Let the producer of ``request`` send its next one."""
        try:
            request.reply.release()
        except Exception:  # one broken producer must not hurt the requests of others
            _logger.exception("the producer of a request failed")

    def _observe(self, call: Callable[..., None], *facts: object) -> None:
        try:
            call(*facts)
        except Exception:  # requests must be answered whatever an observer does
            _logger.exception(_OBSERVER_FAILED)

    def _deliver(self, request: InferenceRequest, outcome: ServingError) -> None:
        try:
            request.reply.deliver(outcome)
        except Exception:  # one broken receiver must not hurt the requests of others
            _logger.exception(_RECEIVER_FAILED)
