"""Checks metadata to send: the core's handling of illegal metadata differs by version."""

import re
from collections.abc import Sequence
from functools import lru_cache

Metadata = Sequence[tuple[str, str | bytes]]
#: Checked metadata in the core's form; None if there is none.
CheckedMetadata = tuple[tuple[str, str | bytes], ...] | None

_KEY = re.compile(r"[0-9a-z_.-]+")
_BINARY_SUFFIX = "-bin"

#: Keys that gRPC writes itself.
_RESERVED = frozenset(
    {
        "content-type",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-internal-encoding-request",
        "grpc-message",
        "grpc-status",
        "grpc-timeout",
        "te",
    }
)


def checked(metadata: Metadata | None) -> CheckedMetadata:
    """Return ``metadata`` in the core's form. Raises ValueError naming the key that is illegal or has such a value."""
    if not metadata:
        return None
    return tuple(_checked_pair(key, value) for key, value in metadata)


def _checked_pair(key: object, value: object) -> tuple[str, str | bytes]:
    key = _checked_key(key)
    if key.endswith(_BINARY_SUFFIX):
        if not isinstance(value, bytes):
            raise ValueError(f"metadata {key!r}: expected bytes, got {type(value).__name__}")
        return key, value
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not (text.isascii() and text.isprintable()):
        raise ValueError(f"metadata {key!r}: expected printable ASCII, got {value!r}")
    return key, text


@lru_cache(maxsize=256)
def _checked_key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise ValueError(f"metadata key {key!r}: expected lower-case letters, digits, '_', '-' and '.'")
    if key in _RESERVED:
        raise ValueError(f"metadata key {key!r} is reserved for gRPC itself")
    return key
