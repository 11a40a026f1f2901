"""Interceptors: called when a call starts, which they may reject, and when it ends."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from inferd.call_context import log_fields
from inferd.rpc.core import Metadata
from inferd.rpc.interfaces import Call, Finisher

_log = logging.getLogger("inferd.rpc")


@dataclass(frozen=True, slots=True)
class Rejection:
    """The status of a rejected call."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: Metadata = ()


class CallInterceptor(Protocol):
    """Sees every call, whatever its handler."""

    def started(self, call: Call, /) -> Rejection | None:
        """Handle a new call whose message was not read yet; return a rejection to reject it.

        On the poll thread: must not block. Inner interceptors do not see a rejected call. An exception rejects it with
        INTERNAL.
        """
        ...

    @property
    def finished(self) -> Finisher | None:
        """Called exactly once for each call passed to ``started``, rejected ones included.

        Must not block or raise. None for interceptors that need the end of some calls only; they use
        `Call.on_finished`.
        """
        ...


class StartingCall(Call, Protocol):
    """A call while its interceptors run. ``finishers`` are called at its end, in order."""

    finishers: tuple[Finisher, ...]


_BROKEN = Rejection(grpc.StatusCode.INTERNAL, "internal error")


class InterceptorChain:
    """The interceptors of a server, outermost first. Immutable."""

    def __init__(self, interceptors: Sequence[CallInterceptor]) -> None:
        #: Each interceptor's ``started``, and the finishers of a call that it rejects.
        self._starters = tuple(
            (interceptor.started, _finishers(interceptors[: index + 1]))
            for index, interceptor in enumerate(interceptors)
        )
        #: The finishers of a call that no interceptor rejects, innermost first.
        self.all_finishers = _finishers(interceptors)

    def start(self, call: StartingCall) -> Rejection | None:
        """Run ``started`` of the interceptors; return the rejection, if any.

        ``call.finishers`` ends with ``all_finishers``; of a rejected call, those of inner interceptors are removed.
        """
        for started, finishers in self._starters:
            try:
                rejection = started(call)
            except Exception:  # noqa: BLE001  a failed interceptor must not let a call pass that it might have rejected
                _log_failure(started, call)
                rejection = _BROKEN
            if rejection is not None:
                own = call.finishers[: len(call.finishers) - len(self.all_finishers)]
                call.finishers = (*own, *finishers)
                return rejection
        return None


def _finishers(interceptors: Sequence[CallInterceptor]) -> tuple[Finisher, ...]:
    """Return each interceptor's ``finished``, the last one first."""
    found = (interceptor.finished for interceptor in reversed(interceptors))
    return tuple(finished for finished in found if finished is not None)


def notify_finished(finishers: tuple[Finisher, ...], call: Call, code: grpc.StatusCode, details: str) -> None:
    """Call ``finishers`` for ``call``, which ends."""
    for finished in finishers:
        try:
            finished(call, code, details)
        except Exception:  # noqa: BLE001  the others must run, and the caller must get the status
            _log_failure(finished, call)


def _log_failure(method: Callable[..., object], call: Call) -> None:
    _log.exception("interceptor %r failed on %s", method, call.method, extra=log_fields(call))
