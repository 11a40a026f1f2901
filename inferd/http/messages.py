"""Requests and answers of HTTP as handlers see them, and the table of operations that finds a request's handler."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, Self

from inferd.rpc import UnaryCall

#: The header with the length of the JSON at the beginning of a body with binary tensors.
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

#: Parts of the body of an answer.
Parts = tuple[bytes | memoryview, ...]

Headers = Sequence[tuple[str, str]]

#: Makes the JSON of an error from its status and its members: ``error``, the text, and optionally ``reason``, ``field``
#: and ``retry_after_ms``.
ErrorForm = Callable[[int, dict[str, object]], dict[str, object]]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class HttpMessage:
    """The body of a request, with the parameters of its path and headers.

    ``body`` is neither copied nor changed: tensors are views of it. ``path`` has the parameters of the path, such
    as ``model`` and ``version`` (without an entry if the path has none), ``query`` those after the question mark.
    """

    body: bytes | bytearray
    path: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    #: The length of the JSON at the beginning of the body (`JSON_LENGTH_HEADER`); None if all of it is JSON.
    json_length: int | None = None
    query: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def __len__(self) -> int:
        return len(self.body)


class HttpBody(bytes):
    """The body of an answer with its status and headers, Content-Type included; handlers pass it to `reply`.

    ``rest``, the parts of a large body, follows these bytes. It is not copied, so its memory must not change.
    """

    headers: tuple[tuple[str, str], ...]
    status: int
    rest: Parts

    def __new__(
        cls, content: bytes, headers: tuple[tuple[str, str], ...] = (), status: int = 200, rest: Parts = ()
    ) -> Self:
        """Return ``content``, and the ``rest`` behind it, with its status and headers."""
        body = super().__new__(cls, content)
        body.headers = headers
        body.status = status
        body.rest = rest
        return body


class HttpUnaryCall(UnaryCall, Protocol):
    """A call over HTTP, whose answer may also be sent in parts, between `begin_stream` and `finish_stream`.

    The methods below are for the poll thread. If the call is aborted or terminated in between, the error is sent as the
    last part, because the status has been sent.
    """

    def begin_stream(self, headers: Headers, error_part: Callable[[bytes], bytes]) -> bool:
        """Begin an answer with status 200, sent with its first part. Returns False if the call has ended.

        After an error, ``error_part`` makes the last part from the body that the error would have otherwise.
        """
        ...

    def send(self, part: bytes) -> bool:
        """Send ``part`` after those before it. Returns False if the call has ended."""
        ...

    def finish_stream(self, last: bytes = b"") -> bool:
        """End the answer with ``last``. Returns False if the call has ended."""
        ...

    @property
    def is_backed_up(self) -> bool:
        """True while the caller reads too slowly: further parts should be joined, and sent when it has read.

        Parts that are sent nevertheless are kept until the caller reads them, or is disconnected for being too slow.
        """
        ...

    def when_read(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the caller has read the parts that wait; at once if there are none.

        It replaces an earlier callback, and is never called once the answer is finished.
        """
        ...


#: Serves an operation; called on the poll thread, where it must not block.
HttpHandler = Callable[[HttpUnaryCall, HttpMessage], None]


def own_form(_status: int, error: dict[str, object]) -> dict[str, object]:
    """Return ``error`` as it is; an `ErrorForm`."""
    return error


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """An operation of the API: a verb and a path with parameters.

    ``method`` names it in metrics, logs, traces and rules: ``POST /v2/models/{model}/infer``, with and without version.
    Larger bodies than ``max_body_bytes`` are refused. Errors have the form ``error_form``.
    """

    method: str
    handler: HttpHandler
    max_body_bytes: int
    error_form: ErrorForm = own_form


@dataclass(frozen=True, slots=True)
class Found:
    """The operation of a request, and the parameters of its path, decoded."""

    operation: Operation
    path: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NotFound:
    """No operation has the path, or none with this verb: then there are ``allowed`` ones. ``text`` is for callers."""

    text: str
    allowed: tuple[str, ...] = ()
    error_form: ErrorForm = own_form


class Router(Protocol):
    """Finds operations. Any thread; never blocks."""

    def find(self, verb: str, path: str) -> Found | NotFound:
        """Return the operation for ``verb`` and ``path``, which is percent-encoded and has no query."""
        ...
