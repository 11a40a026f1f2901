"""What a request message is made of, found before it is parsed: its fields counted, and what stays the same in it.

**Bounds.** Protobuf's parser holds Python's interpreter lock for as long as a message takes, up to 130 ns for an empty
sub-message, and each object that is made of a field takes several times its bytes. So the fields of a message are
counted first, one step each, and a message with too many of them is refused at the first one too many. Elements of
typed lists have a bound of their own; packed ones are counted without a step for each.

**Frames.** Callers send the same request over and over with other numbers in it. All of such a message but the caller's
id and the raw bytes of the tensors is its *frame*. Messages of the same frame are of the same length and differ in
their ids and tensor bytes and in nothing else, so what is known about one holds for the others, and each byte of
one is at the same place in the others.

What is scanned follows from the descriptors of the messages, so that a field that is added to the contract is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from inferd import wire
from inferd.errors import InvalidInputError

#: Fields of a request, those within its tensors and parameters too, but no elements of typed lists. The parser takes
#: about 10 ms for so many.
MAX_FIELDS = 100_000
#: Inputs, outputs, or contents of inputs: far more than any model has.
MAX_TENSORS = 1024
MAX_PARAMETERS = 256
#: As many as an array can have.
MAX_DIMENSIONS = 64
#: Of a name, an id, or a parameter.
MAX_TEXT_BYTES = 64 * 1024

_DEEPEST_GROUP = 100
#: A longer packed list is counted by numpy; the elements of a shorter one are at most its bytes.
_COUNTED_BYTES = 64

_VARINT_END = 0x80


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageLimits:
    """What one message may hold.

    ``requests`` is for a message of a stream; ``elements`` for the typed lists of a request together, and for a tensor
    of BYTES.
    """

    requests: int = 1024
    elements: int = 1_000_000


DEFAULT_LIMITS = MessageLimits()


#: Where a part of a message begins and where it ends.
Bounds = tuple[int, int]


class Frame(NamedTuple):
    """A message taken apart: ``fixed`` parts with their positions, the tensors' bytes, and the id if there is one."""

    fixed: tuple[tuple[bytes, int], ...]
    raw: tuple[Bounds, ...]
    request_id: Bounds | None


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a field is scanned.

    ``nested`` holds the rules of its message; ``most`` is how often it may come, or for a list of numbers how many
    elements it may have (0: any number of times within the bounds of the whole). ``element_bytes`` is what an element
    of a packed list takes, 0 for a variable length. ``is_list`` for typed lists, whose elements are counted together.
    """

    name: str
    nested: "Mapping[int, _Rule] | None" = None
    most: int = 0
    is_packed: bool = False
    element_bytes: int = 0
    is_list: bool = False
    is_raw: bool = False
    is_id: bool = False


_Rules = Mapping[int, _Rule]

_SIZES = {wire.FIXED64: 8, wire.FIXED32: 4}


class RequestScanner:
    """Scans the requests of one protocol.

    Args:
        request: descriptor of the request.
        raw: full names of the fields that hold the bytes of tensors.
        request_id: full name of the field that holds the caller's id.
        lists: full names of the messages whose repeated fields are typed lists, but for shapes.
        limits: the bounds that are settings.
    """

    def __init__(
        self,
        request: Descriptor,
        *,
        raw: frozenset[str],
        request_id: str,
        lists: frozenset[str],
        limits: MessageLimits,
    ) -> None:
        self._max_elements = limits.elements
        self._raw = raw
        self._request_id = request_id
        self._lists = lists
        self._by_message: dict[str, dict[int, _Rule]] = {}
        self._rules = self._rules_of(request)

    def scan(self, message: bytes) -> Frame | None:
        """Return the frame of ``message``, None if it has more than a request with raw tensors needs.

        Raises:
            InvalidInputError: the message has too many of something.
            wire.MalformedError: it is no message.
        """
        walk = _Walk(message, self._max_elements)
        walk.over(0, len(message), self._rules)
        return walk.frame()

    def _rules_of(self, message: Descriptor) -> dict[int, _Rule]:
        rules = self._by_message.get(message.full_name)
        if rules is None:
            # Known before its fields are looked at, as messages may hold themselves.
            rules = self._by_message[message.full_name] = {}
            for field in message.fields:
                self._add(rules, message, field)
        return rules

    def _add(self, rules: dict[int, _Rule], message: Descriptor, field: FieldDescriptor) -> None:
        wire_type = wire.element_wire_type(field)
        is_list = message.full_name in self._lists and field.is_repeated and field.name != "shape"
        rule = _Rule(
            name=field.name,
            nested=None if field.message_type is None else self._rules_of(field.message_type),
            most=0 if is_list or not field.is_repeated else _most(field),
            is_list=is_list,
            is_raw=field.full_name in self._raw,
            is_id=field.full_name == self._request_id,
        )
        rules[field.number << 3 | wire_type] = rule
        if field.is_repeated and wire_type != wire.LENGTH:
            # Parsers take both forms of a list of numbers.
            packed = _Rule(
                name=rule.name,
                most=rule.most,
                is_packed=True,
                element_bytes=_SIZES.get(wire_type, 0),
                is_list=rule.is_list,
            )
            rules[wire.length_tag(field.number)] = packed


def _most(field: FieldDescriptor) -> int:
    if field.name == "shape":
        return MAX_DIMENSIONS
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return MAX_PARAMETERS if is_map else MAX_TENSORS


def _put_before(error: InvalidInputError, rule: _Rule, counts: Mapping[str, int]) -> None:
    """Let the path of ``error`` begin with the message that its field is in, the last of those that were counted."""
    position = f"[{counts[rule.name] - 1}]" if rule.most else ""
    if error.field:
        error.field = f"{rule.name}{position}.{error.field}"


class _Walk:
    """One pass over a message."""

    __slots__ = ("_elements", "_fields", "_has_frame", "_max_elements", "_message", "_raw", "_request_id")

    def __init__(self, message: bytes, max_elements: int) -> None:
        self._message = message
        self._max_elements = max_elements
        self._fields = 0
        self._elements = 0
        self._raw: list[Bounds] = []
        self._request_id: Bounds | None = None
        self._has_frame = True

    def over(self, position: int, end: int, rules: _Rules) -> None:
        """Scan the fields of one message."""
        message = self._message
        counts: dict[str, int] = {}
        while position < end:
            tag = message[position]
            position += 1
            if tag >= _VARINT_END:
                tag, position = wire.read_varint(message, position - 1)
            rule = rules.get(tag)
            if rule is None:
                position = self._over_unknown(tag, position, end)
                continue
            start, position = wire.content_bounds(message, tag & 7, position)
            if position > end:
                raise wire.MalformedError
            self._take(rule, start, position, counts)

    def _take(self, rule: _Rule, start: int, end: int, counts: dict[str, int]) -> None:
        number = self._packed_elements(rule, start, end) if rule.is_packed else 1
        if rule.is_packed or not rule.is_list:
            self._count_field()
        if rule.is_list:
            self._count_elements(number, rule.name)
            return
        if rule.most:
            counts[rule.name] = count = counts.get(rule.name, 0) + number
            if count > rule.most:
                msg = f"{rule.name}: expected at most {rule.most}, got more"
                raise InvalidInputError(msg, field=rule.name)
        if rule.nested is not None:
            try:
                self.over(start, end, rule.nested)
            except InvalidInputError as error:
                _put_before(error, rule, counts)
                raise
        elif rule.is_raw:
            self._raw.append((start, end))
        elif end - start > MAX_TEXT_BYTES:
            msg = f"{rule.name}: expected at most {MAX_TEXT_BYTES} bytes, got {end - start}"
            raise InvalidInputError(msg, field=rule.name)
        elif rule.is_id:
            self._has_frame = self._has_frame and self._request_id is None
            self._request_id = (start, end)

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            msg = f"the message: expected at most {MAX_FIELDS} fields, got more"
            raise InvalidInputError(msg)

    def _count_elements(self, number: int, field: str) -> None:
        self._has_frame = False
        self._elements += number
        if self._elements > self._max_elements:
            msg = (
                f"expected at most {self._max_elements} elements in typed lists, got more; "
                "send the tensor's bytes (raw, raw_input_contents) instead"
            )
            raise InvalidInputError(msg, field=field)

    def _packed_elements(self, rule: _Rule, start: int, end: int) -> int:
        size = end - start
        if rule.element_bytes:
            return size // rule.element_bytes
        if size <= _COUNTED_BYTES:
            return sum(byte < _VARINT_END for byte in self._message[start:end])
        return int(np.count_nonzero(np.frombuffer(self._message, np.int8, size, start) >= 0))

    def _over_unknown(self, tag: int, position: int, end: int) -> int:
        """Skip a field that is not in the contract, with everything in it if it is a group."""
        self._has_frame = False
        open_groups: list[int] = []
        while True:
            self._count_field()
            number, wire_type = tag >> 3, tag & 7
            if number == 0:
                raise wire.MalformedError
            if wire_type == wire.GROUP_START:
                open_groups.append(number)
            elif wire_type == wire.GROUP_END:
                if not open_groups or open_groups.pop() != number:
                    raise wire.MalformedError
            else:
                _, position = wire.content_bounds(self._message, wire_type, position)
            if position > end or len(open_groups) > _DEEPEST_GROUP:
                raise wire.MalformedError
            if not open_groups:
                return position
            tag, position = wire.read_varint(self._message, position)

    def frame(self) -> Frame | None:
        """Return the message taken apart, None if it has anything unusual."""
        if not self._has_frame:
            return None
        fixed: list[tuple[bytes, int]] = []
        position = 0
        for start, end in sorted([*self._raw, *([self._request_id] if self._request_id else [])]):
            fixed.append((self._message[position:start], position))
            position = end
        fixed.append((self._message[position:], position))
        return Frame(tuple(part for part in fixed if part[0]), tuple(self._raw), self._request_id)
