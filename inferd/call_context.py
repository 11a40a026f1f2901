"""The context of a call: what handlers and interceptors record about it for logs, metrics and traces; its id."""

import itertools
import secrets
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote

#: The principal of calls without authentication.
ANONYMOUS = "anonymous"

#: The name of the request id in log lines.
REQUEST_ID_KEY = "request_id"

#: The annotation with the id in the request's message, if the call has one from its metadata.
OWN_ID_KEY = "own_id"
#: How long the requests of a call have waited for loads of their models, in milliseconds.
LOAD_WAIT_KEY = "load_wait_ms"

#: The annotation with the status of a call over HTTP.
HTTP_STATUS_KEY = "http_status"

#: The annotation with the `Generated` of a call that generates.
GENERATED_KEY = "generated"

_MAX_ID_CHARACTERS = 128

_prefix = secrets.token_hex(4)
_numbers = itertools.count(1)
_naming = threading.Lock()


class BatchTiming(Protocol):
    """Timing of a batch; the same object for all of its requests."""

    @property
    def started_at(self) -> float:
        """When its first stage began, in seconds on the monotonic clock."""
        ...

    @property
    def stack_s(self) -> float:
        """Time to stack its rows."""
        ...

    @property
    def run_s(self) -> float:
        """Run time of the model."""
        ...

    @property
    def rows(self) -> int:
        """Rows that ran together."""
        ...


class CallContext:
    """Attributes of nearly every call; None means not known (yet).

    Attributes and not entries of a dictionary, because each call reads and writes them; rarer ones are among the call's
    annotations. ``queue_s`` is set before ``batch``, so readers of a call that may not have ended read ``batch`` first.
    """

    __slots__ = ("batch", "model", "permissions", "principal", "queue_s", "request_id", "rows", "version")

    def __init__(self) -> None:
        #: Printable ASCII of bounded length; see `sanitized_id`.
        self.request_id: str | None = None
        self.principal: str | None = None
        #: The principal's `Permissions`; None if everything is allowed.
        self.permissions: object | None = None
        self.model: str | None = None
        self.version: str | None = None
        #: Rows of the call's request, if it has a single one.
        self.rows: int | None = None
        #: Time of the request in the queue, in seconds, and the timing of its batch; a generation has no batch.
        self.queue_s: float | None = None
        self.batch: BatchTiming | None = None


@dataclass(slots=True)
class Generated:
    """Generated output of a call, or of one request of a stream, so far; for logs and traces.

    ``operation`` is "chat" or "text_completion", as in OpenTelemetry; ``first_token_s`` is from the receipt of the
    first request that got a token. ``finish_reasons`` has each one once, in the order in which they came. Changed by
    the poll thread, and not after the end of the call.
    """

    operation: str = "text_completion"
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_s: float | None = None
    finish_reasons: dict[str, None] = field(default_factory=dict)

    def admitted(self, prompt_tokens: int, operation: str = "text_completion") -> None:
        """Record an admitted request."""
        self.prompt_tokens += prompt_tokens
        self.operation = operation

    def add(self, tokens: int, since_received_s: float) -> None:
        """Record further tokens, generated ``since_received_s`` seconds after the receipt of their request."""
        if self.first_token_s is None and tokens:
            self.first_token_s = since_received_s
        self.tokens += tokens

    def finished(self, reason: str) -> None:
        """Record why a request ended."""
        self.finish_reasons[reason] = None


def generated_by(annotations: MutableMapping[str, object]) -> Generated:
    """Return the record of generated output in ``annotations``; create it for the first request that generates."""
    generated = annotations.setdefault(GENERATED_KEY, Generated())
    assert isinstance(generated, Generated)
    return generated


class CallWithContext(Protocol):
    """A call, as far as its id matters."""

    @property
    def context(self) -> CallContext:
        """Attributes of nearly every call."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """Attributes of some calls, by name."""
        ...


def sanitized_id(given: str) -> str:
    """Return an id from a client as printable ASCII of bounded length, safe in logs and metadata."""
    if len(given) <= _MAX_ID_CHARACTERS and given.isascii() and given.isprintable():
        return given
    return "".join(
        letter if letter.isascii() and letter.isprintable() else "?" for letter in given[:_MAX_ID_CHARACTERS]
    )


def set_message_id(call: CallWithContext, own_id: str) -> None:
    """Use the id in the request's message; an annotation if the call has one from its metadata."""
    if call.context.request_id is None:
        call.context.request_id = sanitized_id(own_id)
    else:
        call.annotations[OWN_ID_KEY] = sanitized_id(own_id)


def request_id_of(context: CallContext) -> str:
    """Return the id of a call; generate one if the client sent none. Any thread."""
    known = context.request_id
    if known is None:
        with _naming:
            known = context.request_id
            if known is None:
                known = context.request_id = f"{_prefix}-{next(_numbers):x}"
    return known


def log_fields(call: CallWithContext) -> dict[str, object]:
    """Return the fields that link a log line to a call: its id, and those of its trace if it is traced."""
    fields: dict[str, object] = {REQUEST_ID_KEY: request_id_of(call.context)}
    fields |= {key: call.annotations[key] for key in ("trace_id", "span_id") if key in call.annotations}
    return fields


@lru_cache(maxsize=1024)
def readable_peer(peer: bytes) -> str:
    """Return an address of gRPC's core without its percent-encoding; cached, as a connection has many calls."""
    return unquote(peer.decode())
