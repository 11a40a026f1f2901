"""Reopens a session that no longer runs anything, for example after an error of its device.

Only failed runs start a check; successful ones cost nothing here. Until the session runs again, requests are rejected
with UNAVAILABLE and the time after which a retry is likely to succeed, and health reports the model as not serving.
"""

import logging
import math
import threading
from collections.abc import Callable

from inferd.batching.ports import Alarm, Clock, Session
from inferd.errors import ModelUnavailableError
from inferd.observability.metrics.models import ModelStats
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.resources import has_room

_logger = logging.getLogger("inferd.batching")

#: Delays of the second and of later attempts to open the session; the first is made at once.
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 60.0
#: After a session has run for this long, or for this many times the last delay, the first delay counts again.
_CALM_S = 60.0
_CALM_DELAYS = 10
#: After this many failed attempts in a row on a device, the process has lost it: its context does not come back. A
#: process at the limit of its memory has then lost that: an arena that cannot grow may keep what it got.
_LOST_AFTER = 5
#: Trial runs that must fail in a row before a session counts as broken, and the least time between two such checks.
_TRIALS = 3
_CHECK_INTERVAL_S = 10.0
#: The expected time to open a session before it was done once, and the shortest retry hint.
_UNKNOWN_OPEN_S = 1.0
_SHORTEST_HINT_S = 0.1

REASON = "MODEL_RECOVERING"


class Backoff:
    """Computes the delay before the next attempt to open a session, and when that is likely to have succeeded. Pure."""

    def __init__(self) -> None:
        #: Failed attempts since the session ran last.
        self.failures = 0
        self.delay_s = 0.0
        #: Duration of the last attempt.
        self.open_s = _UNKNOWN_OPEN_S
        #: When the session is likely to run again.
        self.ready_at = 0.0
        #: Whether the process was at the limit of its memory after the last failed attempt.
        self.is_full = False
        self._worked_at = -math.inf

    def begin(self, now: float) -> None:
        """Set the first delay after the session stopped working: none, unless it was reopened just before."""
        if now - self._worked_at > max(_CALM_S, _CALM_DELAYS * self.delay_s):
            self.delay_s = 0.0
        else:
            self._grow()

    def failed(self) -> None:
        """Count a failed attempt and increase the delay."""
        self.failures += 1
        self._grow()

    def worked(self, now: float) -> None:
        """Record a successful attempt."""
        self.failures = 0
        self._worked_at = now

    def _grow(self) -> None:
        self.delay_s = min(max(2 * self.delay_s, _FIRST_DELAY_S), _LONGEST_DELAY_S)


def _start_thread(work: Callable[[], None], name: str) -> None:
    threading.Thread(target=work, name=name, daemon=True).start()


class Recovery:
    """Decides that a session does not work, and opens it again until it does.

    Invariants: between `begin` and the attempt that succeeds, at most one attempt is due or in progress; ``on_change``
    is called with False when that time begins, and with True when it ends. After `stop` nothing is begun. Attempts are
    threads of their own, started by the alarm. Any thread may call.
    """

    def __init__(
        self,
        *,
        name: str,
        session: Session,
        clock: Clock,
        alarm: Alarm,
        stats: ModelStats,
        on_change: Callable[[bool], None],
        start_thread: Callable[[Callable[[], None], str], None] = _start_thread,
        has_room: Callable[[], bool] = has_room,
    ) -> None:
        self._name = name
        self._session = session
        self._clock = clock
        self._alarm = alarm
        self._stats = stats
        self._on_change = on_change
        self._start_thread = start_thread
        self._has_room = has_room
        self._lock = threading.Lock()
        self._backoff = Backoff()
        #: The reason why the session does not work, for the operator; empty while it does.
        self.reason = ""
        self._check_at = -math.inf
        self._is_stopped = False

    @property
    def is_hopeless(self) -> bool:
        """True if the process seems to have lost the device or the memory, so that only a new process can run it."""
        return (self._session.on_accelerator or self._backoff.is_full) and self._backoff.failures >= _LOST_AFTER

    def unavailable(self) -> ModelUnavailableError:
        """Return the error for requests while the session does not work."""
        left_s = max(self._backoff.ready_at - self._clock(), _SHORTEST_HINT_S)
        text = f'model "{self._name}" does not run at present, it is being opened again'
        return ModelUnavailableError(text, retry_after_s=left_s, reason=REASON)

    def begin(self, reason: str) -> None:
        """Start to reopen the session because of ``reason``; no effect while that is in progress."""
        with self._lock:
            if self.reason or self._is_stopped:
                return
            self.reason = reason
            self._backoff.begin(self._clock())
            self._set_ready_at()
            self._on_change(False)
        _logger.error("model %s does not run any more and is opened again: %s", self._name, reason)
        self._attempt_later()

    def check_session(self) -> None:
        """Check in another thread whether the session runs at all, as a request has failed; at most every 10 s."""
        with self._lock:
            now = self._clock()
            if self.reason or self._is_stopped or now < self._check_at:
                return
            self._check_at = now + _CHECK_INTERVAL_S
        try:
            self._start(self._check_session)
        except RuntimeError:  # the system gives no thread: the other requests of the batch must still be answered
            _logger.exception("no thread could be started to check whether model %s runs at all", self._name)

    def stop(self) -> None:
        """Begin no further attempt: the model is unloaded."""
        with self._lock:
            self._is_stopped = True

    def _check_session(self) -> None:
        for _ in range(_TRIALS):
            try:
                self._session.try_out()
            except RunFailedError as error:
                failed = error
            except RuntimeError:  # closed
                return
            else:
                return
        self.begin(f"a row that ran when the model was loaded fails: {failed}")

    def _set_ready_at(self) -> None:
        self._backoff.ready_at = self._clock() + self._backoff.delay_s + self._backoff.open_s

    def _attempt_later(self) -> None:
        self._alarm.call_at(self._clock() + self._backoff.delay_s, self._begin_attempt)

    def _begin_attempt(self) -> None:
        try:
            self._start(self._attempt)
        except RuntimeError as error:  # the system gives no thread: there must be a next attempt all the same
            self._failed(error)

    def _start(self, work: Callable[[], None]) -> None:
        self._start_thread(work, f"recovery-{self._name}")

    def _attempt(self) -> None:
        if self._is_stopped:
            return
        started_at = self._clock()
        failed: Exception | None = None
        try:
            self._session.reopen()
            self._session.try_out()
        except (ModelLoadError, RunFailedError) as error:
            failed = error
        except Exception as error:  # what a runtime raises: the attempts must go on
            _logger.exception("opening model %s again failed", self._name)
            failed = error
        self._backoff.open_s = self._clock() - started_at
        if failed is None:
            self._worked()
        else:
            self._failed(failed)

    def _failed(self, error: Exception) -> None:
        self._stats.reopened(worked=False)
        with self._lock:
            if self._is_stopped:
                return
            was_hopeless = self.is_hopeless
            self._backoff.failed()
            self._set_ready_at()
            self._backoff.is_full = not self._has_room()
            is_lost = self.is_hopeless and not was_hopeless
            if self.is_hopeless != was_hopeless:
                self._on_change(False)
        delay_s = self._backoff.delay_s
        _logger.error("model %s cannot be opened again, the next try is in %d s: %r", self._name, delay_s, error)
        if is_lost:
            lost = "memory for" if self._backoff.is_full else "device of"
            _logger.critical("the %s model %s does not come back: the process must be restarted", lost, self._name)
        self._attempt_later()

    def _worked(self) -> None:
        self._stats.reopened(worked=True)
        with self._lock:
            self._backoff.worked(self._clock())
            self.reason = ""
            if self._is_stopped:
                return
            self._on_change(True)
        _logger.warning("model %s has been opened again and runs", self._name)
