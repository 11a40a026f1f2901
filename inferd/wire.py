"""Protobuf's wire format, encoded and decoded by hand where a message object would cost too much.

A message is a sequence of fields: a tag, for most a length, and a content. Building an object for each answer and
serializing it takes several times as long as joining known bytes; and protobuf's parser holds Python's interpreter lock
for as long as a message takes, so a message is scanned before it is parsed.

Tags come from the descriptors of the messages (`tag`), or from the number of a field where the generated code must not
be imported or does not exist (`length_tag`, `integer_tag`, `double_tag`).
"""

import mmap
import struct
from collections.abc import Iterator
from typing import Any

#: Wire types: the lowest three bits of a tag.
VARINT, FIXED64, LENGTH, GROUP_START, GROUP_END, FIXED32 = range(6)

_LOW_BITS = 0x7F
_MORE = 0x80
_LONGEST_VARINT_BYTES = 10

#: By the type number of a `FieldDescriptor`; other types are variable-length integers.
_WIRE_TYPES = {
    1: FIXED64,
    2: FIXED32,
    6: FIXED64,
    7: FIXED32,
    9: LENGTH,
    11: LENGTH,
    12: LENGTH,
    15: FIXED32,
    16: FIXED64,
}


class MalformedError(ValueError):
    """The bytes are no protobuf message."""


def tag(message: Any, name: str) -> int:  # noqa: ANN401  (any generated message class; this module imports none)
    """Return the encoded tag of the field ``name`` of a generated class; lists of numbers are packed."""
    field = message.DESCRIPTOR.fields_by_name[name]
    number: int = field.number
    return number << 3 | (LENGTH if field.is_packed else element_wire_type(field))


def element_wire_type(field: Any) -> int:  # noqa: ANN401  (a descriptor of any implementation of protobuf)
    """Return the wire type of one element of a field."""
    return _WIRE_TYPES.get(field.type, VARINT)


def length_tag(number: int) -> int:
    """Return the tag of a field of text, bytes or a message."""
    return number << 3 | LENGTH


def integer_tag(number: int) -> int:
    """Return the tag of a field that is an integer of variable length."""
    return number << 3 | VARINT


def double_tag(number: int) -> int:
    """Return the tag of a field that is a double."""
    return number << 3 | FIXED64


def varint(value: int) -> bytes:
    """Encode a number of 0 or more as a variable-length integer."""
    if value < _MORE:
        return _ONE_BYTE[value]
    return bytes((value & _LOW_BITS | _MORE, value >> 7)) if value < _MORE * _MORE else _varint(value)


def integer(tag: int, value: int) -> bytes:
    """Encode a field with a number of 0 or more; ``tag`` is a single byte."""
    return bytes((tag,)) + varint(value)


def double(tag: int, value: float) -> bytes:
    """Encode a double field; ``tag`` is a single byte."""
    return bytes((tag,)) + _pack_double(value)


def prefix(tag: int, nbytes: int) -> bytes:
    """Encode the tag and length before a content of ``nbytes``; ``tag`` is a single byte."""
    return bytes((tag, nbytes)) if nbytes < _MORE else bytes((tag,)) + varint(nbytes)


def field(tag: int, content: bytes) -> bytes:
    """Encode a field whose content has a length: text, bytes or a message."""
    return prefix(tag, len(content)) + content


def read_varint(message: bytes | mmap.mmap, position: int) -> tuple[int, int]:
    """Return the integer at ``position`` and the position behind it. Raises `MalformedError`."""
    value = 0
    try:
        for shift in range(_LONGEST_VARINT_BYTES):
            byte = message[position + shift]
            value |= (byte & _LOW_BITS) << (7 * shift)
            if byte < _MORE:
                return value, position + shift + 1
    except IndexError:
        raise MalformedError from None
    raise MalformedError


def contents(message: bytes, tag: int) -> Iterator[bytes | None]:
    """Yield the contents of the fields with ``tag``, and None for each other field. Raises `MalformedError`.

    One step is one field, so the iterating code bounds the work. Other fields must not be groups.
    """
    position, end = 0, len(message)
    while position < end:
        found = message[position]
        position += 1
        if found >= _MORE:
            found, position = read_varint(message, position - 1)
        start, position = content_bounds(message, found & 7, position)
        if position > end:
            raise MalformedError
        yield message[start:position] if found == tag else None


def content_bounds(message: bytes | mmap.mmap, wire_type: int, position: int) -> tuple[int, int]:
    """Return the bounds of a field's content, given the end of its tag in ``position``; not for groups.

    The end may be beyond that of the message. Raises `MalformedError`.
    """
    if wire_type == LENGTH:
        size, position = read_varint(message, position)
        return position, position + size
    if wire_type == VARINT:
        return position, read_varint(message, position)[1]
    if wire_type == FIXED64:
        return position, position + 8
    if wire_type == FIXED32:
        return position, position + 4
    raise MalformedError


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= _MORE:
        written.append(value & _LOW_BITS | _MORE)
        value >>= 7
    written.append(value)
    return bytes(written)


_pack_double = struct.Struct("<d").pack

_ONE_BYTE = tuple(bytes((value,)) for value in range(_MORE))
