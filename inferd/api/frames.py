"""What stays the same between the requests of one caller, found without parsing them.

Callers send the same request over and over with other numbers in it. All of such a message but the caller's id and the
raw bytes of the tensors is its *frame*. `skim` walks over the fields of a message as protobuf writes them, each a tag,
for most a length, and a content, and takes the frame apart from the rest. Messages of the same frame are of the same
length and differ in their ids and tensor bytes and in nothing else, so what was found out about one holds for the
others, and each byte of one is at the same place in the others.

`skim` knows just the fields that a request with raw tensors has. For any other message, malformed ones among them, it
returns None and leaves it to the parser to say what is wrong.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

#: Set in every byte of a variable-length integer but its last.
_MORE = 0x80
_LONGEST_VARINT_BYTES = 10


class Field(Enum):
    """What a field of a request is to `skim`."""

    #: Part of the frame.
    FRAME = auto()
    #: Part of the frame, a bare integer.
    FRAME_INTEGER = auto()
    #: A tensor's bytes.
    RAW = auto()
    #: The caller's id.
    ID = auto()
    #: A message whose fields are looked at in turn.
    NESTED = auto()


#: What each field is, by tag, and within a nested one.
Rules = Mapping[int, Field]


#: Where a part of a message begins and where it ends.
Bounds = tuple[int, int]


class Frame(NamedTuple):
    """A message taken apart: ``fixed`` parts with their positions, the tensors' bytes, and the id if there is one."""

    fixed: tuple[tuple[bytes, int], ...]
    raw: tuple[Bounds, ...]
    request_id: Bounds | None


class _UnknownFieldError(Exception):
    """The message has something that is not looked at here."""


class Skimmer:
    """Takes messages of one type apart. ``rules`` are for the message itself and ``nested`` for its NESTED fields."""

    def __init__(self, rules: Rules, nested: Rules | None = None) -> None:
        self._rules = rules
        self._nested = nested or {}

    def skim(self, message: bytes) -> Frame | None:
        """Return the frame of ``message``, or None if it has anything unusual."""
        walk = _Walk(message)
        try:
            walk.over(0, len(message), self._rules, self._nested)
        except (IndexError, _UnknownFieldError):
            return None
        return walk.frame()


class _Walk:
    """One pass over a message."""

    __slots__ = ("_message", "_raw", "_request_id")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._raw: list[Bounds] = []
        self._request_id: Bounds | None = None

    def over(self, position: int, end: int, rules: Rules, nested: Rules) -> None:
        message = self._message
        while position < end:
            field = rules.get(message[position])
            size, position = _varint(message, position + 1)
            if field is Field.FRAME_INTEGER:
                continue
            content, position = position, position + size
            if field is None or position > end:
                raise _UnknownFieldError
            if field is Field.RAW:
                self._raw.append((content, position))
            elif field is Field.ID:
                if self._request_id is not None:
                    raise _UnknownFieldError
                self._request_id = (content, position)
            elif field is Field.NESTED:
                self.over(content, position, nested, {})
        if position != end:
            raise _UnknownFieldError

    def frame(self) -> Frame:
        fixed: list[tuple[bytes, int]] = []
        position = 0
        for start, end in sorted([*self._raw, *([self._request_id] if self._request_id else [])]):
            fixed.append((self._message[position:start], position))
            position = end
        fixed.append((self._message[position:], position))
        return Frame(tuple(part for part in fixed if part[0]), tuple(self._raw), self._request_id)


def split(message: bytes, tag: int) -> list[bytes] | None:
    """Return the contents of the fields with ``tag``, or None if the message has anything else."""
    contents: list[bytes] = []
    position, end = 0, len(message)
    try:
        while position < end:
            if message[position] != tag:
                return None
            size, position = _varint(message, position + 1)
            contents.append(message[position : position + size])
            position += size
    except (IndexError, _UnknownFieldError):
        return None
    return contents if position == end else None


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the integer at ``position`` and the position behind it."""
    value = 0
    for shift in range(_LONGEST_VARINT_BYTES):
        byte = message[position + shift]
        value |= (byte & ~_MORE) << (7 * shift)
        if byte < _MORE:
            return value, position + shift + 1
    raise _UnknownFieldError
