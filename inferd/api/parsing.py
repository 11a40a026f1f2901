"""Bytes to messages, the same for every method."""

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.errors import InvalidInputError
from inferd.wire import MalformedError

Parsed = TypeVar("Parsed", bound=Message)
Found = TypeVar("Found")

#: A query is a few names. Protobuf's parser takes some milliseconds for the worst message of this size.
_MAX_QUERY_BYTES = 64 * 1024


def parse(kind: type[Parsed], message: bytes) -> Parsed:
    """Return the query in ``message``. Raises `InvalidInputError` if it is none, or far larger than any."""
    if len(message) > _MAX_QUERY_BYTES:
        msg = f"{kind.DESCRIPTOR.full_name}: expected at most {_MAX_QUERY_BYTES} bytes, got {len(message)}"
        raise InvalidInputError(msg)
    return parsed(kind, message)


def parsed(kind: type[Parsed], message: bytes) -> Parsed:
    """Return ``message``, whose size or fields were bounded, as a ``kind``, or raise `InvalidInputError`."""
    try:
        return kind.FromString(message)
    except (DecodeError, ValueError, RecursionError):
        # The last two come from protobuf's implementation in Python, for text that is no UTF-8 and for deep groups.
        raise _malformed(kind) from None


def scanned(scan: Callable[[bytes], Found], kind: type[Message], message: bytes) -> Found:
    """Return what ``scan`` finds in a ``kind``. Raises `InvalidInputError` if it is none, or if ``scan`` does."""
    try:
        return scan(message)
    except MalformedError:
        raise _malformed(kind) from None


def _malformed(kind: type[Message]) -> InvalidInputError:
    return InvalidInputError(f"the message is not a valid {kind.DESCRIPTOR.full_name}")
