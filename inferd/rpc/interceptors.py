"""Interceptors: told when a call starts, which they may refuse, and when it has ended."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from inferd.request_id import log_fields
from inferd.rpc.interfaces import Call, Finisher
from inferd.rpc.metadata import Metadata

_log = logging.getLogger("inferd.rpc")


@dataclass(frozen=True, slots=True)
class CallRefusal:
    """The status that a call is refused with."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: Metadata = ()


class CallInterceptor(Protocol):
    """Looks at every call, whatever its handler."""

    def started(self, call: Call, /) -> CallRefusal | None:
        """A call came in and nothing of it was read yet. On the poll thread: must not block.

        A call that is refused is not shown to the interceptors further in. Raising refuses it with INTERNAL.
        """
        ...

    @property
    def finished(self) -> Finisher | None:
        """Told of the end exactly once for each call that ``started`` was told of, also if it was refused.

        A method that does not block or raise, or None for interceptors that need to know of some calls only, and ask
        those by `Call.on_finished`.
        """
        ...


class StartingCall(Call, Protocol):
    """A call that interceptors are being shown. ``finishers`` are told of its end, the first one first."""

    finishers: tuple[Finisher, ...]


_BROKEN = CallRefusal(grpc.StatusCode.INTERNAL, "internal error")


class InterceptorChain:
    """The interceptors of a server, outermost first. Immutable; used by any thread."""

    def __init__(self, interceptors: Sequence[CallInterceptor]) -> None:
        #: Each interceptor's ``started``, and who is to be told of the end if that refuses.
        self._starters = tuple(
            (interceptor.started, _finishers(interceptors[: index + 1]))
            for index, interceptor in enumerate(interceptors)
        )
        #: To be told of the end of a call that every interceptor let pass, innermost first.
        self.all_finishers = _finishers(interceptors)

    def start(self, call: StartingCall) -> CallRefusal | None:
        """Show ``call``, whose finishers are all of ours, to the interceptors; returns the refusal, if any.

        Of a call that is refused, those further in are not told.
        """
        for started, finishers in self._starters:
            try:
                refusal = started(call)
            except Exception:  # noqa: BLE001  an interceptor's fault must not let a call pass that it might have refused
                _log_failure(started, call)
                refusal = _BROKEN
            if refusal is not None:
                own = call.finishers[: len(call.finishers) - len(self.all_finishers)]
                call.finishers = (*own, *finishers)
                return refusal
        return None


def _finishers(interceptors: Sequence[CallInterceptor]) -> tuple[Finisher, ...]:
    """Find each interceptor's ``finished`` once and not for each call anew; the last one first."""
    found = (interceptor.finished for interceptor in reversed(interceptors))
    return tuple(finished for finished in found if finished is not None)


def notify_finished(finishers: tuple[Finisher, ...], call: Call, code: grpc.StatusCode, details: str) -> None:
    """Tell ``finishers`` that ``call`` has ended."""
    for finished in finishers:
        try:
            finished(call, code, details)
        except Exception:  # noqa: BLE001  the others must hear of it, and the caller must get the status
            _log_failure(finished, call)


def _log_failure(method: Callable[..., object], call: Call) -> None:
    _log.exception("interceptor %r failed on %s", method, call.method, extra=log_fields(call))
