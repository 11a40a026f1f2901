"""An RPC as the interceptors of this package see it, without a dependency on the gRPC server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.call_context import CallContext
from inferd.observability.timing import Stages

#: The annotation of a call with the listeners for results of a stream.
_LISTENERS = "result_listeners"


class Status(Protocol):
    """A gRPC status code."""

    @property
    def name(self) -> str:
        """The name, for example ``RESOURCE_EXHAUSTED``."""
        ...


#: Called in any thread when a call has ended, with its status and details; must not block or raise.
Finisher = Callable[["Call", Status, str], None]


class Call(Protocol):
    """One RPC. Handlers and interceptors set its context and annotations.

    The access log reads them some time after the call has ended. A value that references the call or its messages must
    therefore be removed when the call finishes.
    """

    @property
    def method(self) -> str:
        """``/package.Service/Name``."""
        ...

    @property
    def peer(self) -> str:
        """The caller's address as gRPC writes it."""
        ...

    @property
    def raw_peer(self) -> bytes:
        """The address as gRPC's core writes it; `readable_peer` decodes it."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """The metadata that the caller sent."""
        ...

    @property
    def started_at(self) -> float:
        """When the call was accepted, in seconds on the monotonic clock."""
        ...

    @property
    def ended_at(self) -> float:
        """When it was answered or cancelled, in seconds on the monotonic clock; set once it has finished."""
        ...

    @property
    def context(self) -> CallContext:
        """Attributes of nearly every call."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """Attributes of some calls, by name."""
        ...

    def on_finished(self, finisher: Finisher) -> None:
        """Call ``finisher`` when the call has ended; only while the call starts."""
        ...

    def add_trailing_metadata(self, pairs: Sequence[tuple[str, str | bytes]]) -> None:
        """Send ``pairs`` with the status; at the latest in an interceptor's ``finished``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """The outcome of one request of a stream. ``error`` is empty for OK, ``model`` if the request names none."""

    request_id: str
    model: str
    version: str
    rows: int
    status: str
    error: str
    stages: Stages


ResultListener = Callable[[Call, StreamResult], None]


def listen_for_results(call: Call, listener: ResultListener) -> None:
    """Call ``listener`` with each result of ``call``, if it is a stream; only while the call starts.

    It is called in any thread, for one result at a time, before the stream can end. It must not block or raise.
    """
    listeners = result_listeners(call)
    call.annotations[_LISTENERS] = (*listeners, listener)


def result_listeners(call: Call) -> tuple[ResultListener, ...]:
    """Return the listeners for results of ``call``."""
    listeners: tuple[ResultListener, ...] = call.annotations.get(_LISTENERS, ())  # type: ignore[assignment]  # set above
    return listeners
