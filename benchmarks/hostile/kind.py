"""A kind of hostile message, and functions that build its bytes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from inferd import wire

Build = Callable[[int], bytes]
Part = Callable[[int], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of message. ``build(nbytes)`` returns one of about that size; ``method`` is the path it is sent to.

    ``streams``: whether the method takes a stream; the message is then its only one.
    """

    name: str
    method: str
    build: Build
    streams: bool = False


def filled(head: bytes, part: bytes) -> Build:
    """Build ``head`` followed by copies of ``part``."""
    return partial(_filled, head, part)


def numbered(head: bytes, part: Part) -> Build:
    """Build ``head`` followed by parts made from 0, 1, 2 and so on."""
    return partial(_numbered, head, part)


def wrapped(tag: int, build: Build, head: bytes = b"", tail: bytes = b"") -> Build:
    """Build ``head``, one field with the result of ``build``, and ``tail``."""
    return partial(_wrapped, tag, build, head, tail)


def length_field(tag: int, content: bytes) -> bytes:
    """Encode a field of text, bytes or a message; unlike `wire.field` with a tag of any length."""
    return wire.varint(tag) + wire.varint(len(content)) + content


def packed(tag: int, element: bytes, head: bytes = b"") -> Build:
    """Build a packed list of numbers that are all ``element``."""
    return wrapped(tag, filled(b"", element), head)


def long_varint(value: int) -> bytes:
    """Encode a number in ten bytes, the maximum length."""
    written = [value >> 7 * index & 0x7F | 0x80 for index in range(9)]
    return bytes((*written, value >> 63 & 1))


def label(number: int) -> bytes:
    """Return a unique name for a number."""
    return b"%08x" % number


def _filled(head: bytes, part: bytes, nbytes: int) -> bytes:
    return head + part * max(1, (nbytes - len(head)) // len(part))


def _numbered(head: bytes, part: Part, nbytes: int) -> bytes:
    return head + b"".join(_parts(part, nbytes - len(head)))


def _parts(part: Part, nbytes: int) -> Iterator[bytes]:
    number = size = 0
    while size < nbytes:
        made = part(number)
        yield made
        number += 1
        size += len(made)


def _wrapped(tag: int, build: Build, head: bytes, tail: bytes, nbytes: int) -> bytes:
    return head + length_field(tag, build(nbytes - len(head) - len(tail))) + tail
