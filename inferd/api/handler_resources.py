"""Dependencies that the handlers of all services share."""

from collections.abc import Callable
from dataclasses import dataclass

from inferd.api.large_messages import LargeMessages
from inferd.api.model_waits import ModelWaits
from inferd.api.open_streams import OpenStreams
from inferd.api.status import StatusTable
from inferd.api.wire_scanner import MessageLimits
from inferd.models.registry import ModelRegistry

#: Calls a function on the poll thread, soon. Any thread.
CallSoon = Callable[[Callable[[], None]], None]

DRAINING = "the server is draining"


@dataclass(frozen=True, kw_only=True, slots=True)
class HandlerResources:
    """Dependencies that the handlers of all services share."""

    registry: ModelRegistry
    statuses: StatusTable
    call_soon: CallSoon
    streams: OpenStreams
    waits: ModelWaits
    large_messages: LargeMessages
    limits: MessageLimits
