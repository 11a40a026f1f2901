"""Answers the requests of failed runs: with an error, or from further runs, depending on the cause.

| the run | what follows |
|---|---|
| gave a request another answer than alone | each request runs alone |
| was out of memory | memory is freed, and the requests run in groups of half as many rows, until that is enough |
| failed because of the device | all requests fail with UNAVAILABLE, and the session is opened again |
| failed for another reason | it is bisected until only the requests fail that fail alone |
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.batching.bisection import Bisection
from inferd.batching.memory_limit import MemoryLimit
from inferd.batching.ports import Session
from inferd.batching.recovery import Recovery
from inferd.batching.request import Batch, BatchTiming, FailedRunError, InferenceRequest, ReplyDispatcher
from inferd.errors import OutOfMemoryError, ServingError
from inferd.runtime.errors import RunFailedError, RunFailure, SessionClosedError, failure_of
from inferd.runtime.resources import has_room
from inferd.runtime.stacking import RowsDoNotFollowError

_logger = logging.getLogger("inferd.batching")


class MismatchError(Exception):
    """A request gets another answer alone than in its batch; the text says which output and how, without values."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """Requests that ran together and have no answer yet, and why. ``queue_s`` has the queue time of each.

    ``rows`` are those of the run that failed: of a request that runs in pieces, those of a piece.
    """

    live: Sequence[InferenceRequest]
    error: Exception
    timing: BatchTiming
    queue_s: Sequence[float]
    rows: int


#: Runs requests of a batch again, in pieces of at most this many rows if there is only one request; 0 for the usual.
#: Returns why they are not answered, or None.
RunAgain = Callable[[Batch, Sequence[InferenceRequest], int], FailedRun | None]


class FailedRuns:
    """Runs the requests of a failed run again or fails them, and reopens the session if needed.

    Any thread that runs batches may call. Invariant: after `answer`, every request has been answered or was settled
    before. A request with more rows than ``memory`` permits is run in pieces only if ``in_pieces``. ``on_mismatch`` is
    called when requests turn out to get other answers in a batch than alone; from then on, and in the batch at hand,
    each runs alone. ``free_idle`` frees memory that other models keep, and returns whether there was any.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        replies: ReplyDispatcher,
        memory: MemoryLimit,
        recovery: Recovery,
        in_pieces: bool,
        on_mismatch: Callable[[], None],
        free_idle: Callable[[], bool] = lambda: False,
        has_room: Callable[[], bool] = has_room,
    ) -> None:
        self._name = name
        self._session = session
        self._replies = replies
        self.memory = memory
        self.recovery = recovery
        self._in_pieces = in_pieces
        self._on_mismatch = on_mismatch
        self._free_idle = free_idle
        self._has_room = has_room
        #: Whether the mismatch has been logged; it is logged twice if two threads find one at the same time.
        self._mismatch_logged = False

    def answer(self, batch: Batch, failed: FailedRun, run: RunAgain) -> None:
        """Answer the requests of ``failed``, which ``run`` may run again."""
        error = failed.error
        if isinstance(error, MismatchError | RowsDoNotFollowError):
            stops = self._stop_batching(failed.live, error)
            if stops or isinstance(error, MismatchError):
                # If the operator has set that the model batches, only this batch runs one by one.
                for request in failed.live:
                    self._run_again(batch, [request], run)
                return
        kind = failure_of(error)
        if kind is RunFailure.DEVICE:
            self.recovery.begin(str(error))
        # It may have been opened again since.
        if self.recovery.reason or isinstance(error, SessionClosedError):
            for request in failed.live:
                self._replies.fail(request, self.recovery.unavailable())
        elif kind is RunFailure.OUT_OF_MEMORY:
            self._run_fewer_rows(batch, failed, run)
        elif len(failed.live) > 1:
            self._bisect(batch, failed, run)
        else:
            self._fail(failed)

    def _run_again(self, batch: Batch, requests: Sequence[InferenceRequest], run: RunAgain) -> None:
        failed = run(batch, requests, 0)
        if failed is not None:
            self.answer(batch, failed, run)

    def _stop_batching(self, live: Sequence[InferenceRequest], error: Exception) -> bool:
        """Stop batching; False if the operator has set that the model batches."""
        if not self._session.signature.batchable:
            return True
        stops = self._session.stop_batching(f"found while serving: {error}")
        if stops:
            self._on_mismatch()
        elif self._mismatch_logged:
            return False
        self._mismatch_logged = True
        _logger.error(
            "a request to model %s gets another answer in a batch than alone; %s",
            self._name,
            "its version is no longer batched" if stops else "it is still batched, because batch_axis is set",
            extra={"request_ids": [request.reply.request_id for request in live], "reason": str(error)},
        )
        return stops

    def _bisect(self, batch: Batch, failed: FailedRun, run: RunAgain) -> None:
        _logger.warning(
            "a batch of %d requests to model %s failed; running it again in parts: %r",
            len(failed.live),
            self._name,
            failed.error,
        )
        bisection = Bisection(failed.live)
        while (group := bisection.next()) is not None:
            again = run(batch, group, 0)
            if again is None:
                continue
            if len(again.live) > 1 and _may_be_fault_of_one(again.error):
                bisection.failed(again.live)
            else:
                self.answer(batch, again, run)

    def _fail(self, failed: FailedRun) -> None:
        """Answer one request that fails alone."""
        (request,), error = failed.live, failed.error
        if isinstance(error, ServingError):
            self._replies.fail(request, error)
            return
        extra = {"request_id": request.reply.request_id}
        _logger.error("a request to model %s failed", self._name, exc_info=error, extra=extra)
        self._replies.fail(request, FailedRunError(failed.timing, failed.queue_s[0]))
        self.recovery.check_session()

    def _run_fewer_rows(self, batch: Batch, failed: FailedRun, run: RunAgain) -> None:
        """Run the requests in groups of fewer rows, half as many each time that the memory is not enough.

        As many as before come first, if idle models had memory to free. The largest group that works is the limit for
        the batches to come. If no group works, nothing is known of it: a row may be too large, or something else may
        have taken the memory for a moment.
        """
        # The time of several runs says nothing about that of one.
        batch.cut_off = True
        first_rows = failed.rows
        idle_had_some = self._free_idle()
        less_rows, worked, is_lone = self._next_rows(failed), 0, False
        most_rows = first_rows if idle_had_some else less_rows
        left = deque(failed.live)
        while left:
            group = _next_group(left, most_rows)
            batch.run_s = None
            again = run(batch, group, most_rows)
            if again is None:
                if _has_run(batch):
                    rows = min(sum(request.rows for request in group), most_rows)
                    # A size that takes all there is leaves nothing for the rest of the process.
                    worked = max(worked, rows if self._has_room() else max(rows // 2, 1))
                if is_lone:
                    # One request was too large, which says little about the others.
                    most_rows = min(2 * most_rows, max(first_rows // 2, 1))
            elif failure_of(again.error) is not RunFailure.OUT_OF_MEMORY:
                self.answer(batch, again, run)
            elif self._can_run_fewer_rows(again):
                failed, worked, most_rows = again, 0, self._next_rows(again)
                left.extendleft(reversed(again.live))
            else:
                failed, is_lone = again, True
                self._fail_for_memory(again)
        if 0 < worked < failed.rows:
            self.memory.learned(worked)
            self._session.remember_rows(self.memory.rows)
        self._free_memory()

    def _next_rows(self, failed: FailedRun) -> int:
        """Free memory after a run was out of it; return how many rows to run next."""
        _logger.warning("a run of %d rows of model %s was out of memory: %r", failed.rows, self._name, failed.error)
        self._replies.out_of_memory()
        # The frames of the traceback hold outputs of earlier pieces, and thereby their parts of the arena.
        failed.error.__traceback__ = None
        self._free_memory()
        return max(failed.rows // 2, 1)

    def _can_run_fewer_rows(self, failed: FailedRun) -> bool:
        return len(failed.live) > 1 or (failed.rows > 1 and self._in_pieces and self._session.signature.batchable)

    def _free_memory(self) -> RunFailedError | None:
        """Free what larger runs have left behind; return why not even one row ran that is known to run."""
        try:
            self._session.try_out()
        except RunFailedError as error:
            return error
        except RuntimeError:  # closed, or being opened again
            pass
        return None

    def _fail_for_memory(self, failed: FailedRun) -> None:
        """Answer one request for which the memory is not enough in its smallest pieces, after memory was freed."""
        (request,) = failed.live
        self._replies.out_of_memory()
        failed.error.__traceback__ = None
        _logger.error(
            "a request to model %s needs more memory than there is: %r",
            self._name,
            failed.error,
            extra={"request_id": request.reply.request_id, "rows": request.rows},
        )
        rows = "its rows one by one" if request.rows > 1 and failed.rows == 1 else "it"
        self._replies.fail(request, OutOfMemoryError(f"the server has not enough memory to run {rows}"))
        error = self._free_memory()
        if error is not None:
            # Not the request: the session holds too much, or what it holds is in pieces.
            self.recovery.begin(f"not even one small row runs: {error}")


def _may_be_fault_of_one(error: Exception) -> bool:
    """Return whether one request of several may be at fault for ``error``."""
    return failure_of(error) is RunFailure.OTHER and not isinstance(error, MismatchError | RowsDoNotFollowError)


def _has_run(batch: Batch) -> bool:
    """Return whether a run has succeeded since ``run_s`` was reset; not if no request needed one any more."""
    return batch.run_s is not None


def _next_group(left: deque[InferenceRequest], most_rows: int) -> list[InferenceRequest]:
    """Take the first requests, up to ``most_rows``, but at least one; a larger one runs in pieces."""
    group = [left.popleft()]
    rows = group[0].rows
    while left and rows + left[0].rows <= most_rows:
        rows += left[0].rows
        group.append(left.popleft())
    return group
