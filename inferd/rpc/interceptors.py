"""Interceptors: told when a call starts, which they may refuse, and when it has ended."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from inferd.request_id import log_fields
from inferd.rpc.calls import Call
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

    def finished(self, call: Call, code: grpc.StatusCode, details: str, /) -> None:
        """The call has ended; comes exactly once for each that ``started`` was told of, also if it was refused.

        Called just before the status is sent, in the thread that ended the call. Must not block or raise.
        """
        ...


_BROKEN = CallRefusal(grpc.StatusCode.INTERNAL, "internal error")


#: An interceptor's ``finished``, found once and not for each call anew.
Finisher = Callable[[Call, grpc.StatusCode, str], None]


class InterceptorChain:
    """The interceptors of a server, outermost first. Immutable; used by any thread."""

    def __init__(self, interceptors: Sequence[CallInterceptor]) -> None:
        finishers = tuple(interceptor.finished for interceptor in interceptors)
        #: Each interceptor's ``started``, and who is to be told of the end if that refuses.
        self._starters = tuple(
            (interceptor.started, finishers[index::-1]) for index, interceptor in enumerate(interceptors)
        )
        #: To be told of the end of a call that every interceptor let pass, innermost first.
        self.all_finishers: tuple[Finisher, ...] = finishers[::-1]

    def start(self, call: Call) -> tuple[CallRefusal | None, tuple[Finisher, ...]]:
        """Show ``call`` to the interceptors; returns the refusal, if any, and who is to be told of the end."""
        for started, finishers in self._starters:
            try:
                refusal = started(call)
            except Exception:  # noqa: BLE001  an interceptor's fault must not let a call pass that it might have refused
                _log_failure(started, call)
                refusal = _BROKEN
            if refusal is not None:
                return refusal, finishers
        return None, self.all_finishers


def tell_finished(finishers: tuple[Finisher, ...], call: Call, code: grpc.StatusCode, details: str) -> None:
    """Tell ``finishers`` that ``call`` has ended."""
    for finished in finishers:
        try:
            finished(call, code, details)
        except Exception:  # noqa: BLE001  the others must hear of it, and the caller must get the status
            _log_failure(finished, call)


def _log_failure(method: Callable[..., object], call: Call) -> None:
    _log.exception("interceptor %r failed on %s", method, call.method, extra=log_fields(call.annotations))
