"""What can go wrong with a request, said without any transport.

Every message is written for the caller and is sent as it is, so it never holds exception texts, file paths or anything
else from inside the server. ``inferd.api.errors`` maps the classes to gRPC statuses.
"""

from dataclasses import dataclass
from typing import Literal

from inferd.plain_text import escaped

#: What proxies pass of a status is about 2 KiB, header and details together. The message is in both: in the header
#: percent-encoded, with three bytes for each byte that is not plain ASCII, and in the details in base64. The rest is
#: for the reason, the retry hint, the request's id and the names of the headers.
_LONGEST_ENCODED_BYTES = 1400
_BASE64 = 4 / 3
_ESCAPED_BYTES = 3
#: So many characters fit whatever they are.
_ALWAYS_FIT = int(_LONGEST_ENCODED_BYTES / (4 * (_ESCAPED_BYTES + _BASE64)))
#: And so many at the most.
_MOST_CHARACTERS = int(_LONGEST_ENCODED_BYTES / (1 + _BASE64))


class ServingError(Exception):
    """A request that ends without a result.

    ``message`` is for the caller to read. It may quote what came: so it is cut to a length that can be sent, and what
    cannot be seen is escaped.
    ``reason`` is a constant in UPPER_SNAKE_CASE for programs, logs and metric labels; subclasses name theirs.
    """

    reason = "UNKNOWN"
    #: The path to the field that the error is about, in the terms of the contract that was used; empty if none is.
    field = ""

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        self.message = _sendable(message)
        super().__init__(self.message)
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """What an error is about, whatever the protocol: an input or an output of a request, or one aspect of it."""

    kind: Literal["input", "output"]
    name: str
    aspect: Literal["name", "datatype", "shape", "elements"]


#: What else of a request an error may be about.
Part = Literal["model", "inputs", "priority", "timeout"]


class InvalidInputError(ServingError):
    """The request cannot be run as it is; the message says which field, what was expected and what came.

    ``at`` is what it is about, for programs; whoever knows the protocol makes ``field`` of it. Who knows that already
    gives ``field``.
    """

    reason = "INVALID_INPUT"

    def __init__(self, message: str, *, at: Place | Part | None = None, field: str = "") -> None:
        super().__init__(message)
        self.at = at
        self.field = field


class ModelNotFoundError(ServingError):
    """No such model, or no such version of it."""

    reason = "MODEL_NOT_FOUND"


class ModelUnavailableError(ServingError):
    """The model is loading, failed or unloading, or the server is draining."""

    reason = "MODEL_UNAVAILABLE"


#: Every ``reason`` of an `OverloadedError`.
OVERLOAD_REASONS = ("QUEUE_FULL", "SHED", "DEADLINE_TOO_CLOSE", "CALLER_RUNS_LIMIT", "BLOCKED_LIMIT", "RUNS_STUCK")


class OverloadedError(ServingError):
    """The request was refused, or shed after it was admitted, because a limit was reached.

    ``retry_after_s`` is when a retry is likely to be admitted, computed from how fast the queue drains.
    """

    reason = "QUEUE_FULL"

    def __init__(self, message: str, *, retry_after_s: float, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class NotAuthenticatedError(ServingError):
    """The caller has no credential that holds, or has one no longer."""

    reason = "NOT_AUTHENTICATED"


class NotAllowedError(ServingError):
    """The caller is known and may not do this. What it may not even see is a `ModelNotFoundError` to it instead."""

    reason = "NOT_ALLOWED"


class QuotaExceededError(ServingError):
    """The caller has used up what it may ask for; the server itself may have room.

    ``retry_after_s`` is when its quota has room for this request.
    """

    reason = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(ServingError):
    """The deadline or timeout passed before there was an answer."""

    reason = "DEADLINE_EXCEEDED"


class RunTooLongError(ServingError):
    """The model ran for longer than a run may take, and was ended."""

    reason = "RUN_TOO_LONG"


class InferenceFailedError(ServingError):
    """The model's run failed for this request. The message is a fixed text; the log has the cause."""

    reason = "INFERENCE_FAILED"

    def __init__(self) -> None:
        super().__init__("the model failed to run this request")


def _sendable(message: str) -> str:
    # One more than can be sent, so that it shows whether it was cut.
    text = escaped(message[: _MOST_CHARACTERS + 1])
    if len(text) <= _ALWAYS_FIT or (len(text) <= _MOST_CHARACTERS and text.isascii() and "%" not in text):
        return text
    left = _LONGEST_ENCODED_BYTES - _encoded_bytes("…")
    fits = 0
    for character in text:
        left -= _encoded_bytes(character)
        if left < 0:
            break
        fits += 1
    return text if fits == len(text) <= _MOST_CHARACTERS else f"{text[:fits]}…"


def _encoded_bytes(character: str) -> float:
    """Return what ``character`` of a message takes in the header and the details of a status."""
    if character.isascii() and character != "%":
        return 1 + _BASE64
    return len(character.encode()) * (_ESCAPED_BYTES + _BASE64)
