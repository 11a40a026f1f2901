"""Messages put together as bytes: of what is the same in all answers of a kind, only the parts that differ are written.

Protobuf writes a message as its fields one behind the other, each a tag, for most a length, and a content. Building an
object for each answer and having it written takes several times as long as joining bytes that are known.
"""

from functools import lru_cache

_LOW_BITS = 0x7F
_MORE = 0x80


def varint(value: int) -> bytes:
    """Write a number of 0 or more in the variable length that protobuf gives it."""
    return _short_varint(value) if value < _SHORT else _varint(value)


def integer(tag: int, value: int) -> bytes:
    """Write a field that is a number of 0 or more; ``tag`` is a single byte."""
    return bytes((tag,)) + varint(value)


def prefix(tag: int, nbytes: int) -> bytes:
    """Write what stands in front of a content of ``nbytes``; ``tag`` is a single byte."""
    return bytes((tag,)) + varint(nbytes)


def field(tag: int, content: bytes) -> bytes:
    """Write a field whose content has a length: text, bytes or a message."""
    return prefix(tag, len(content)) + content


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= _MORE:
        written.append(value & _LOW_BITS | _MORE)
        value >>= 7
    written.append(value)
    return bytes(written)


#: Numbers below this are written so often that what they look like is kept.
_SHORT = 4096
_short_varint = lru_cache(maxsize=_SHORT)(_varint)
