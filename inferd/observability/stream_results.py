"""The results of a stream's requests, for interceptors that listen to them."""

from collections.abc import Callable
from dataclasses import dataclass

from inferd.call_context import Generated
from inferd.observability.timing import Stages
from inferd.rpc import Call

#: The annotation of a call with the listeners for results of a stream.
_LISTENERS = "result_listeners"


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamResult:
    """The outcome of one request of a stream. ``error`` is empty for OK, ``model`` if the request names none.

    ``generated`` is what a language model has generated for it.
    """

    request_id: str
    model: str
    version: str
    rows: int
    status: str
    error: str
    stages: Stages
    generated: Generated | None = None


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
