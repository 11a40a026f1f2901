"""Requests and answers of HTTP as handlers see them, and the table of operations that finds a request's handler."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, Self

from inferd.rpc import UnaryCall

#: The header with the length of the JSON at the beginning of a body with binary tensors.
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

#: Parts of the body of an answer.
Parts = tuple[bytes | memoryview, ...]

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


#: Serves an operation; called on the poll thread, where it must not block.
HttpHandler = Callable[[UnaryCall, HttpMessage], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """Something that can be asked for: a verb and a path with parameters.

    ``method`` names it in metrics, logs, traces and rules: ``POST /v2/models/{model}/infer``, with and without version.
    Larger bodies than ``max_body_bytes`` are refused.
    """

    method: str
    handler: HttpHandler
    max_body_bytes: int


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


class Router(Protocol):
    """Finds operations. Any thread; never blocks."""

    def find(self, verb: str, path: str) -> Found | NotFound:
        """Return the operation for ``verb`` and ``path``, which is percent-encoded and has no query."""
        ...
