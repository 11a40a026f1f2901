"""Validation of the client's arguments: `TypeError` or `ValueError` with the name of the argument.

Separate from the client, for commands that must not wait for its import.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from numbers import Integral, Real

from inferd.plain_text import escaped, quoted

#: Metadata in gRPC's form.
Metadata = tuple[tuple[str, str | bytes], ...]

#: Metadata as callers pass it: values by key, or pairs, which may repeat a key.
MetadataLike = Mapping[str, str | bytes] | Sequence[tuple[str, str | bytes]]

# Timeouts from here on count as none. Within the range of clocks, queues and gRPC.
_UNLIMITED_S = 1_000_000_000

_KEY = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")
_TOKEN = re.compile(r"[!-~]+")

# Keys that HTTP/2 forbids or gRPC sets itself; gRPC would silently drop them, or break the call.
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)


def checked_integer(name: str, value: object, least: int, most: float = inf) -> int:
    """Return ``value`` as an int from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {_kind(value)}")
    if not least <= int(value) <= most:
        raise ValueError(f"{name} is {value}, expected {_range(least, most)}")
    return int(value)


def checked_number(name: str, value: object, least: float, most: float = inf) -> float:
    """Return ``value`` as a float from ``least`` to ``most``; NaN is rejected."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:  # An int beyond the range of floats.
        number = -inf if value < 0 else inf
    if not least <= number <= most:
        raise ValueError(f"{name} is {value}, expected {_range(least, most)}")
    return number


def checked_flag(name: str, value: object) -> bool:
    """Return ``value``, True or False: a text such as "no" would count as true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {_kind(value)}")
    return value


def checked_text(name: str, value: object) -> str:
    """Return ``value``, a text that can be encoded."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a str, got {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name}: expected text, got a lone surrogate at {error.start}") from None
    return value


def checked_timeout(timeout_s: object) -> float | None:
    """Return a timeout; None, or infinity, means no limit."""
    if timeout_s is None:
        return None
    seconds = checked_number("timeout_s", timeout_s, 0)
    return None if seconds >= _UNLIMITED_S else seconds


def checked_metadata(metadata: object) -> Metadata:
    """Return `MetadataLike` with its keys in lower case, as gRPC requires.

    Errors name the key but do not show the value, because it may be secret.
    """
    return tuple(_checked_pair(key, value) for key, value in pairs_of("metadata", metadata))


def merged(own: Metadata, added: Metadata) -> Metadata:
    """Return both, without those of ``own`` whose key is among the ``added``."""
    keys = {key for key, _ in added}
    return tuple(pair for pair in own if pair[0] not in keys) + added


def checked_token(token: object) -> str:
    """Return ``token``; errors do not show it."""
    if not isinstance(token, str):
        raise TypeError(f"token: expected a str, got {_kind(token)}")
    if _TOKEN.fullmatch(token) is None:
        found = next((escaped(letter) for letter in token if not "!" <= letter <= "~"), "nothing")
        raise ValueError(f"token: expected printable ASCII without spaces, got {found!r}")
    return token


def pairs_of(name: str, given: object) -> Iterator[tuple[object, object]]:
    """Yield the pairs of a mapping, or of an iterable of pairs."""
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        raise TypeError(f"{name}: expected a mapping or pairs, got {_kind(given)}")
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"{name}: expected a mapping or pairs, got {_kind(pair)} in it")
        yield pair[0], pair[1]


def _checked_pair(key: object, value: object) -> tuple[str, str | bytes]:
    if not isinstance(key, str):
        raise TypeError(f"metadata: expected a str as key, got {_kind(key)}")
    name = key.lower()
    shown = f"metadata {quoted(key)}"
    if _KEY.fullmatch(name) is None:
        raise ValueError(f"{shown}: expected a key of letters, digits, '_', '-' and '.'")
    if name in _RESERVED or name.startswith("grpc-"):
        raise ValueError(f"{shown}: expected a key that neither gRPC nor HTTP keeps for itself")
    return name, _checked_bytes(shown, value) if name.endswith("-bin") else _checked_ascii(shown, value)


def _checked_bytes(shown: str, value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{shown}: expected bytes, as its key ends in -bin, got {_kind(value)}")
    return value


def _checked_ascii(shown: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{shown}: expected a str, got {_kind(value)}; keys of bytes end in -bin")
    if _TEXT.fullmatch(value) is None:
        raise ValueError(f"{shown}: expected printable ASCII; other values go as bytes under a key that ends in -bin")
    return value


def _kind(value: object) -> str:
    return type(value).__name__


def _range(least: float, most: float) -> str:
    if least == -inf:
        return "a number"
    return f"at least {least}" if most == inf else f"{least} to {most}"
