"""Answers requests and counts the outcomes."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

from inferd.batching.ports import Clock
from inferd.batching.request import InferenceRequest, InferenceResult
from inferd.errors import OverloadedError, ServingError
from inferd.observability.metrics.models import BatchReport, ModelStats

_logger = logging.getLogger("inferd.batching")

_STATS_FAILED = "counting failed"
_RECEIVER_FAILED = "the receiver of an outcome failed"


class Answers:
    """Delivers outcomes to replies and counts them.

    Any thread may call, with no lock held. Exceptions of ``stats`` and of receivers are logged and go no further. A
    request that already has its outcome is skipped.
    """

    def __init__(self, *, clock: Clock, stats: ModelStats) -> None:
        self._clock = clock
        self._stats = stats

    def offered(self, requests: Sequence[InferenceRequest]) -> None:
        """Count ``requests`` before they are admitted or rejected."""
        # Not through `_count`: this runs for each request.
        try:
            for request in requests:
                self._stats.offered(request.rows)
        except Exception:  # see there
            _logger.exception(_STATS_FAILED)

    def caller_ran(self) -> None:
        """Count a request that runs outside the queue."""
        self._count(self._stats.caller_ran)

    def batch_done(self, report: BatchReport) -> None:
        """Report a run, before its requests are answered."""
        # Not through `_count`: this runs for each batch.
        try:
            self._stats.batch_done(report)
        except Exception:  # see there
            _logger.exception(_STATS_FAILED)

    def run_ended(self, reason: str) -> None:
        """Report a run that is terminated early."""
        self._count(self._stats.run_ended, reason)

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """Report that one request of a batch ran again alone."""
        self._count(partial(self._stats.checked, run_s, mismatch=mismatch))

    def answered(self, encode_s: float) -> None:
        """Report how long answering the requests of a run took."""
        try:
            self._stats.answered(encode_s)
        except Exception:  # as in `_count`
            _logger.exception(_STATS_FAILED)

    def fail(self, request: InferenceRequest, error: ServingError) -> None:
        """Answer ``request`` with ``error``."""
        if request.reply.done():
            return
        reason = error.reason if isinstance(error, OverloadedError) else ""
        self._count(self._stats.failed, self._clock() - request.received_at, reason)
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

    def _count(self, count: Callable[..., None], *values: object) -> None:
        try:
            count(*values)
        except Exception:  # requests must be answered whatever happens to their counts
            _logger.exception(_STATS_FAILED)

    def _deliver(self, request: InferenceRequest, outcome: ServingError) -> None:
        try:
            request.reply.deliver(outcome)
        except Exception:  # one broken receiver must not hurt the requests of others
            _logger.exception(_RECEIVER_FAILED)
