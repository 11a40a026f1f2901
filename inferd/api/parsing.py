"""Bytes to messages, the same for every method."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from inferd.errors import InvalidInputError

Parsed = TypeVar("Parsed", bound=Message)


def parse(kind: type[Parsed], message: bytes) -> Parsed:
    """Return ``message`` as a ``kind``, or raise `InvalidInputError` if it is none."""
    try:
        return kind.FromString(message)
    except DecodeError:
        raise InvalidInputError(f"the message is not a valid {kind.DESCRIPTOR.full_name}") from None
