"""How calls of other protocols come in: they live beside those of gRPC, within the same limits, on the poll thread."""

from dataclasses import dataclass
from typing import Protocol

from inferd.rpc.accept import InterceptorChain
from inferd.rpc.call import CallBase
from inferd.rpc.call_ends import MEMORY_BUDGET, TOO_MANY_CALLS
from inferd.rpc.live_calls import LiveCalls


class CallSource(Protocol):
    """What brings calls of another protocol; both methods are called on the poll thread, when the server stops."""

    def cancel_all(self) -> None:
        """End the calls that live, because the grace period is over."""
        ...

    def close(self) -> bool:
        """Bring no more calls to the poll thread. Returns False, without effect, if some are on their way."""
        ...


@dataclass(frozen=True, slots=True)
class Entrance:
    """What calls share, whatever their protocol; on the poll thread only."""

    live: LiveCalls
    interceptors: InterceptorChain
    max_inflight_unary: int | None

    def admit(self, call: CallBase) -> bool:
        """Show the new ``call`` to the interceptors and the limits. Returns False if it was rejected."""
        live = self.live
        rejection = self.interceptors.start(call)
        if rejection is not None:
            call.abort(rejection.code, rejection.details, rejection.trailing_metadata)
        elif live.is_short_of_memory:
            live.reject(call, MEMORY_BUDGET)
        elif self.max_inflight_unary is not None and live.inflight_unary >= self.max_inflight_unary:
            live.reject(call, TOO_MANY_CALLS)
        else:
            return True
        return False
