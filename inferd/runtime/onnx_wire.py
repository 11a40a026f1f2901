"""Walk and rewrite the protobuf messages of an ONNX file, without loading what is in them."""

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from inferd import wire

Content = bytes | mmap.mmap


class Field(NamedTuple):
    """One field of a message: a number if it is a varint, else the bounds of its content.

    With its tag, it goes from ``begin`` to ``behind``.
    """

    number: int
    value: int
    start: int
    end: int
    begin: int
    behind: int


def fields(content: Content, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message from ``start`` to ``end``. Raises `ValueError` if it is damaged."""
    position = start
    while position < end:
        begin = position
        tag, position = _varint(content, position, end)
        number, wire_type = divmod(tag, 8)
        if wire_type == wire.VARINT:
            value, position = _varint(content, position, end)
            yield Field(number, value, 0, 0, begin, position)
            continue
        inside, position = _bounds(content, wire_type, position, end)
        yield Field(number, 0, inside, position, begin, position)


def text(content: Content, field: Field) -> str:
    """Return the content of ``field``, which is text."""
    return content[field.start : field.end].decode()


def integers(content: Content, field: Field) -> list[int]:
    """Return the elements of a repeated integer field, each separate or packed."""
    if field.start == field.end == 0:
        return [signed(field.value)]
    found = []
    position = field.start
    while position < field.end:
        value, position = _varint(content, position, field.end)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """Return the int64 whose bits are those of ``value``."""
    return value - (1 << 64) if value >= 1 << 63 else value


def message(number: int, *parts: bytes) -> bytes:
    """Encode a field with text or a message in it."""
    size = sum(map(len, parts))
    return b"".join((wire.varint(wire.length_tag(number)), wire.varint(size), *parts))


def _varint(content: Content, position: int, end: int) -> tuple[int, int]:
    try:
        value, behind = wire.read_varint(content, position)
    except wire.MalformedError:
        raise _damaged(position) from None
    if behind > end:
        raise _damaged(position)
    return value, behind


def _bounds(content: Content, wire_type: int, position: int, end: int) -> tuple[int, int]:
    try:
        start, behind = wire.content_bounds(content, wire_type, position)
    except wire.MalformedError:
        raise _damaged(position) from None
    if behind > end:
        raise _damaged(position)
    return start, behind


def _damaged(position: int) -> ValueError:
    return ValueError(f"it ends early or is damaged near byte {position}")
