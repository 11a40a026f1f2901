"""Errors of requests, independent of the transport.

Messages are written for the caller and sent unchanged, so they never contain exception texts, file paths or other
internals of the server. ``inferd.api.status`` maps the classes to gRPC statuses.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from inferd.plain_text import escaped

#: Proxies pass about 2 KiB of a status, header and details together. The message is in both: percent-encoded in the
#: header, with three bytes for each byte that is not plain ASCII, and in base64 in the details. The rest is for the
#: reason, the retry delay, the request id and the header names.
_MAX_ENCODED_BYTES = 1400
_BASE64 = 4 / 3
_ESCAPED_BYTES = 3
#: Any message of this length fits.
_ALWAYS_FIT = int(_MAX_ENCODED_BYTES / (4 * (_ESCAPED_BYTES + _BASE64)))
#: No longer message fits.
_MAX_CHARACTERS = int(_MAX_ENCODED_BYTES / (1 + _BASE64))


class Retry(Enum):
    """Whether clients repeat a call on their own, as gRPC's retry policies do.

    A policy waits for the delay that the server names even if the deadline of the call comes first.
    """

    AFTER_DELAY = "after the delay of the error, if it has one"
    SOON = "when the client would without a delay of the server"
    NEVER = "never"


class ServingError(Exception):
    """A request that ends without a result.

    ``message`` is for the caller. As it may quote the request, it is escaped, and truncated to a length that can be
    sent. ``reason`` is a constant in UPPER_SNAKE_CASE for programs, logs and metric labels; each subclass has one.
    """

    reason = "UNKNOWN"
    #: The path of the invalid field in the protocol of the call; empty if there is none.
    field = ""
    retry = Retry.AFTER_DELAY

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        self.message = _sendable(message)
        super().__init__(self.message)
        if reason is not None:
            self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """The part of a request that an error is about, in any protocol: an aspect of an input or output."""

    kind: Literal["input", "output"]
    name: str
    aspect: Literal["name", "datatype", "shape", "elements"]


#: Other parts of a request that an error may be about.
Part = Literal["model", "inputs", "priority", "timeout", "choices"]


class InvalidInputError(ServingError):
    """The request is invalid. The message says which field, what was expected and what was received.

    ``at`` is the part of the request, which the api translates to the ``field`` of its protocol. Code that knows the
    protocol sets ``field`` itself.
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
    """The model is loading, failed or unloading, or the server is draining.

    ``retry_after_s`` is the delay after which a retry is likely to find the model; None if nothing is known of that.
    """

    reason = "MODEL_UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        reason: str | None = None,
        retry: Retry = Retry.AFTER_DELAY,
    ) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s
        self.retry = retry


class ColdModelError(ModelUnavailableError):
    """A request has found ``version`` of an on-demand ``model`` not READY; it may wait until the model is loaded."""

    def __init__(self, message: str, *, model: str, version: str) -> None:
        super().__init__(message)
        self.model = model
        self.version = version


class ModelControlError(ServingError):
    """The server's mode of control does not allow models to be loaded or unloaded by calls."""

    reason = "MODEL_CONTROL_DISABLED"
    # The same call would be refused again.
    retry = Retry.NEVER


class ModelLoadFailedError(ServingError):
    """A model could not be loaded or unloaded; whatever served before still does."""

    reason = "MODEL_LOAD_FAILED"


#: Every ``reason`` of an `OverloadedError`.
OVERLOAD_REASONS = ("QUEUE_FULL", "SHED", "DEADLINE_TOO_CLOSE", "CALLER_RUNS_LIMIT", "BLOCKED_LIMIT", "RUNS_STUCK")


class OverloadedError(ServingError):
    """The request was rejected, or shed after admission, because a limit was reached.

    ``retry_after_s`` is the delay after which a retry is likely to be admitted, from the drain rate of the queue; None
    if none is.
    """

    reason = "QUEUE_FULL"

    def __init__(self, message: str, *, retry_after_s: float | None, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class NotAuthenticatedError(ServingError):
    """The caller has no valid credential, or its credential has expired or been revoked."""

    reason = "NOT_AUTHENTICATED"


class NotAllowedError(ServingError):
    """The caller lacks the permission. A model that it may not see raises `ModelNotFoundError` instead."""

    reason = "NOT_ALLOWED"


class QuotaExceededError(ServingError):
    """The caller's quota is used up; the server itself may have capacity.

    ``retry_after_s`` is the delay after which the quota allows this request.
    """

    reason = "QUOTA_EXCEEDED"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceededError(ServingError):
    """The deadline or timeout expired before the request was answered."""

    reason = "DEADLINE_EXCEEDED"


class RunTooLongError(ServingError):
    """The run exceeded its time limit and was terminated."""

    reason = "RUN_TOO_LONG"


class OutOfMemoryError(ServingError):
    """The model could not run the request, not even in its smallest pieces, because there was not enough memory."""

    reason = "OUT_OF_MEMORY"
    # The same request would most likely fail again, and take the memory of others meanwhile.
    retry = Retry.NEVER


class InferenceFailedError(ServingError):
    """The model failed on this request. The message is a fixed text; the cause is in the log."""

    reason = "INFERENCE_FAILED"

    def __init__(self) -> None:
        super().__init__("the model failed to run this request")


def _sendable(message: str) -> str:
    # One character more than fits, to detect truncation.
    text = escaped(message[: _MAX_CHARACTERS + 1])
    if len(text) <= _ALWAYS_FIT or (len(text) <= _MAX_CHARACTERS and text.isascii() and "%" not in text):
        return text
    left = _MAX_ENCODED_BYTES - _encoded_bytes("…")
    fits = 0
    for character in text:
        left -= _encoded_bytes(character)
        if left < 0:
            break
        fits += 1
    return text if fits == len(text) <= _MAX_CHARACTERS else f"{text[:fits]}…"


def _encoded_bytes(character: str) -> float:
    """Return the size of ``character`` in the header and details of a status together."""
    if character.isascii() and character != "%":
        return 1 + _BASE64
    return len(character.encode()) * (_ESCAPED_BYTES + _BASE64)
