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

#: Makes the JSON of an error, from its status and from what inferd says of it: ``error``, the text, and where there are
#: such ``reason``, ``field`` and ``retry_after_ms``.
ErrorForm = Callable[[int, dict[str, object]], dict[str, object]]

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class HttpMessage:
    """The body of a request, and what its path and headers say of it.

    ``body`` is not copied or changed any more: tensors are views of it. ``path`` has the parameters of the path, such
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
    """The body of an answer with its status and headers, Content-Type among them; what handlers pass to `reply`.

    A large one is in parts: ``rest`` follows these bytes. It is not copied, so what it views must not change any more.
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
    """A call over HTTP, whose answer may also be sent bit by bit: between `begin_stream` and `finish_stream`.

    These are for the poll thread. A call that ends otherwise then, by ``abort`` or because it is terminated, sends the
    error as the last part of its answer, whose status has been sent.
    """

    def begin_stream(self, headers: Headers, error_part: Callable[[bytes], bytes]) -> bool:
        """Begin an answer with the status 200, which leaves with its first part. Returns False if the call has ended.

        ``error_part`` makes the last part, if there is an error, of the body that the error has elsewhere.
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
        """Whether the caller does not read: more is to be put together, and sent when it does.

        Everything that is sent nevertheless is kept until the caller reads it, or is found to be too slow.
        """
        ...

    def when_read(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when the caller has read what waits; at once if nothing does.

        In place of an earlier callback, and never once the answer is finished.
        """
        ...


#: Serves an operation; called on the poll thread, where it must not block.
HttpHandler = Callable[[HttpUnaryCall, HttpMessage], None]


def own_form(_status: int, error: dict[str, object]) -> dict[str, object]:
    """Return ``error`` as it is; an `ErrorForm`."""
    return error


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Something that can be asked for: a verb and a path with parameters.

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
