"""Limits the duration of runs.

A run that exceeds the model's limit, or whose requests all have their outcome, is terminated, which ONNX Runtime does
between two operators. If it continues inside one long operator, its thread is given up and replaced.
"""

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from inferd.batching.ports import Alarm, Clock, OneCoreSession, Session, weak_callback
from inferd.batching.request import Batch, InferenceRequest, ReplyDispatcher
from inferd.errors import RunTooLongError
from inferd.runtime.runners import RunStop
from inferd.runtime.signature import Tensors

_logger = logging.getLogger("inferd.batching")

#: How long a terminated run may take to end before its thread is given up; most operators take less.
ENDING_S = 1.0


class EndReason(StrEnum):
    """The reason why a run was terminated."""

    TIME_LIMIT = "time_limit"
    ABANDONED = "abandoned"


class RunEndedError(Exception):
    """A run was terminated; its outputs, if any, are discarded."""


@dataclass(slots=True, eq=False)
class _Run:
    """A run in progress, and when to check it: at its limit, and after its termination."""

    requests: Sequence[InferenceRequest]
    batch: Batch
    stop: RunStop
    check_at: float
    reason: EndReason | None = None


class RunGuard:
    """Runs a model and terminates runs that take too long.

    Invariants: each run in ``_active`` is checked when its time has come; the alarm is set for ``_next_check``, which
    is not later than the earliest of them. A run is terminated for one reason, which is counted and logged once. The
    lock is held for a few assignments only.

    `run` is called by the threads that run batches, `end_abandoned` by any thread that has settled requests that
    may be running. ``on_stuck`` is called in the alarm's thread with a batch whose run did not end.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        one_core: OneCoreSession | None = None,
        limit_s: float,
        clock: Clock,
        alarm: Alarm,
        replies: ReplyDispatcher,
        on_stuck: Callable[[Batch], None],
    ) -> None:
        self._name = name
        self._session = session
        self._one_core = one_core
        self._limit_s = limit_s
        self._clock = clock
        self._alarm = alarm
        self._replies = replies
        self._on_stuck = on_stuck
        self._lock = threading.Lock()
        # A dictionary because adding, removing and listing are each done in one step, whatever other threads do.
        self._active: dict[_Run, None] = {}
        self._next_check = math.inf

    def run(
        self, requests: Sequence[InferenceRequest], batch: Batch, inputs: Tensors, outputs: Sequence[str], now: float
    ) -> list[NDArray[np.generic]]:
        """Run the model for ``requests`` of ``batch``, as `Session.run`, which may raise anything.

        Raises `RunEndedError` if the run was terminated, or if all ``requests`` have their outcome.
        """
        run = _Run(requests, batch, RunStop(), now + self._limit_s)
        # Register the run before checking the requests: a thread that settles requests afterwards finds it.
        self._active[run] = None
        try:
            if run.check_at < self._next_check:
                self._check_by(run.check_at)
            if _is_abandoned(requests):
                run.reason = EndReason.ABANDONED
            else:
                session = self._one_core if batch.on_one_core and self._one_core is not None else self._session
                arrays = session.run(inputs, outputs, run.stop)
        except Exception:
            if run.reason is None:
                raise
        finally:
            del self._active[run]
        if run.reason is not None:
            raise RunEndedError
        return arrays

    def end_abandoned(self) -> None:
        """Terminate the runs whose requests all have their outcome."""
        for run in list(self._active):
            if run.reason is None and _is_abandoned(run.requests):
                self._end(run, EndReason.ABANDONED)

    def _check_by(self, when: float) -> None:
        with self._lock:
            if when >= self._next_check:
                return
            self._next_check = when
        self._alarm.call_at(when, weak_callback(self._check))

    def _check(self) -> None:
        """Terminate runs at their limit, and give up terminated runs that have not ended."""
        now = self._clock()
        if now < self._next_check:
            # A check for an earlier alarm has already set the next one.
            return
        self._next_check = math.inf
        for run in list(self._active):
            if run.check_at > now:
                continue
            if run.reason is None:
                self._end(run, EndReason.TIME_LIMIT)
            else:
                run.check_at = math.inf
                self._on_stuck(run.batch)
        earliest = min((run.check_at for run in list(self._active)), default=math.inf)
        if earliest < math.inf:
            self._check_by(earliest)

    def _end(self, run: _Run, reason: EndReason) -> None:
        with self._lock:
            if run.reason is not None or run not in self._active:
                return
            run.check_at = self._clock() + ENDING_S
            run.reason = reason
        run.stop.stop()
        self._replies.run_ended(reason)
        _logger.log(
            # Callers cancel all the time.
            logging.WARNING if reason is EndReason.TIME_LIMIT else logging.INFO,
            "a run of model %s is terminated: %s",
            self._name,
            f"it took longer than {self._limit_s:g} s (runtime.max_run_ms)"
            if reason is EndReason.TIME_LIMIT
            else "all of its requests were cancelled or expired",
            extra={"request_ids": [request.reply.request_id for request in run.requests]},
        )
        if reason is EndReason.TIME_LIMIT:
            error = RunTooLongError(f"the model ran for longer than the {self._limit_s:g} s that a run may take")
            for request in run.requests:
                self._replies.fail(request, error)
        self._check_by(run.check_at)


def _is_abandoned(requests: Sequence[InferenceRequest]) -> bool:
    # The first request mostly has none yet, and checking only that takes a fraction of the time.
    return requests[0].reply.done() and all(request.reply.done() for request in requests)
