"""The calls of a server that the core still has work for."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from inferd.rpc.cut_off import Ends
from inferd.rpc.inflating import Inflater
from inferd.rpc.interceptors import InterceptorChain
from inferd.rpc.poll_loop import PollLoop
from inferd.rpc.refusals import REASONS, Refused, StatusOf, bare_status

if TYPE_CHECKING:
    from inferd.rpc.call_base import CallBase


class LiveCalls:
    """Knows the live calls, and holds what each of them needs of its server.

    A call is live from its acceptance until every event of it has arrived. The server must not be freed before none
    is. ``held_bytes`` are those of the messages of live calls. All of it changes on the poll thread only; ``count``,
    ``held_bytes`` and ``refused`` may be read in any.
    """

    def __init__(
        self,
        loop: PollLoop,
        interceptors: InterceptorChain,
        *,
        status_of: StatusOf = bare_status,
        inflater: Inflater | None = None,
        ends: Ends | None = None,
    ) -> None:
        self.loop = loop
        self.interceptors = interceptors
        self.inflater = inflater
        self.ends = Ends() if ends is None else ends
        #: In the order of their acceptance; the values say nothing.
        self.calls: dict[CallBase, None] = {}
        self.held_bytes = 0
        #: Whether calls are refused before their message is read, because memory is short.
        self.is_short_of_memory = False
        #: Called for the next call, if nobody looks after the live calls at present.
        self.on_call: Callable[[], None] | None = None
        #: How many calls were refused, by reason.
        self.refused = dict.fromkeys(REASONS, 0)
        self._status_of = status_of

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.calls)

    def refuse(self, call: "CallBase", refused: Refused) -> None:
        """End ``call`` without serving it."""
        refusal = self._status_of(refused)
        if call.abort(refusal.code, refusal.details, refusal.trailing_metadata):
            self.refused[refused.reason] += 1
