"""What the interceptors here need of a call, so that they know no gRPC server."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.call_facts import CallFacts
from inferd.observability.timing import Stages

#: Where a call's annotations have those who are to be told of each result of a stream.
_LISTENERS = "result_listeners"


class Status(Protocol):
    """A gRPC status code."""

    @property
    def name(self) -> str:
        """Its name, for example ``RESOURCE_EXHAUSTED``."""
        ...


#: Told how a call has ended, in any thread; must not block or raise.
Finisher = Callable[["Call", Status, str], None]


class Call(Protocol):
    """One RPC. Its facts and annotations are what the handlers found out about it.

    The log reads them a little after the end of the call. So whoever puts there what leads back to the call, or to
    messages, takes it out again when the call finishes.
    """

    @property
    def method(self) -> str:
        """``/package.Service/Name``."""
        ...

    @property
    def peer(self) -> str:
        """Who calls, as gRPC writes it."""
        ...

    @property
    def raw_peer(self) -> bytes:
        """The same as gRPC's core writes it; `inferd.peer` makes it readable."""
        ...

    @property
    def metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """What the caller sent along."""
        ...

    @property
    def started_at(self) -> float:
        """When the call was accepted, in seconds on the monotonic clock."""
        ...

    @property
    def ended_at(self) -> float:
        """When it was answered or cut off, in seconds on the monotonic clock; known once it has finished."""
        ...

    @property
    def facts(self) -> CallFacts:
        """What nearly every call has to tell."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """What only some have, by name."""
        ...

    def on_finished(self, finisher: Finisher) -> None:
        """Have ``finisher`` told of the end; to be asked for when the call starts."""
        ...

    def add_trailing_metadata(self, pairs: Sequence[tuple[str, str | bytes]]) -> None:
        """Have ``pairs`` go out with the status; the last moment is an interceptor's ``finished``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """What one request of a stream came to. ``error`` is empty for OK; ``model`` for one that named none."""

    request_id: str
    model: str
    version: str
    rows: int
    status: str
    error: str
    stages: Stages


ResultListener = Callable[[Call, StreamResult], None]


def listen_for_results(call: Call, listener: ResultListener) -> None:
    """Have ``listener`` told of each result of ``call``, if it is a stream; to be asked for when the call starts.

    It is told before the stream can end for that result, in any thread, one result of a stream after the other. It
    must not block or raise.
    """
    listeners = result_listeners(call)
    call.annotations[_LISTENERS] = (*listeners, listener)


def result_listeners(call: Call) -> tuple[ResultListener, ...]:
    """Return who is to be told of each result of ``call``."""
    listeners: tuple[ResultListener, ...] = call.annotations.get(_LISTENERS, ())  # type: ignore[assignment]  # see above
    return listeners
