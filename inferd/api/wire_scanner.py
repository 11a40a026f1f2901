"""Scan the wire format of a request before it is parsed: bound its fields, and find the template it follows.

**Bounds.** Protobuf's parser holds the GIL for a whole message, up to 130 ns for an empty sub-message, and each parsed
field becomes an object several times its size. So fields are counted before parsing, one step each, and a message with
too many is rejected at the first field over the limit. Elements of typed lists have their own limit; packed lists are
counted without a step for each element.

**Templates.** Clients send the same request repeatedly with different numbers. The template is everything but the
request id and the raw tensor bytes. Messages with the same template have the same length and differ only in those
bytes, so what is known about one holds for all of them, at the same offsets.

The rules follow from the message descriptors, so new fields of the contract are bounded automatically.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from inferd import wire
from inferd.errors import InvalidInputError

Parsed = TypeVar("Parsed", bound=Message)

#: Fields of a request, nested ones included, elements of typed lists not. The parser takes about 10 ms for this many.
MAX_FIELDS = 100_000
#: Inputs, outputs, or contents of inputs: far more than any model has.
MAX_TENSORS = 1024
MAX_PARAMETERS = 256
#: The most that a numpy array can have.
MAX_DIMENSIONS = 64
#: Bytes of a name, an id, or a parameter.
MAX_TEXT_BYTES = 64 * 1024

#: Fields, those that are left out included, and bytes of an outline: some tensors and parameters.
_MAX_OUTLINE_FIELDS = 64
_MAX_OUTLINE_BYTES = 2048

_MAX_GROUP_DEPTH = 100
#: Longer packed lists are counted with numpy.
_MAX_TRANSLATED_BYTES = 64

#: Bytes from this value on continue a variable-length integer.
_CONTINUES = 0x80
_CONTINUATION_BYTES = bytes(range(_CONTINUES, 256))


@dataclass(frozen=True, kw_only=True, slots=True)
class MessageLimits:
    """Limits for one message.

    ``requests`` in a stream message; ``elements`` in all typed lists of a request together, and in a BYTES tensor.
    """

    requests: int = 1024
    elements: int = 1_000_000


DEFAULT_LIMITS = MessageLimits()


#: Start and end of a part of a message.
Bounds = tuple[int, int]


class Template(NamedTuple):
    """The layout of a message: ``fixed`` parts with their offsets, the raw tensors, and the request id if present."""

    fixed: tuple[tuple[bytes, int], ...]
    raw: tuple[Bounds, ...]
    request_id: Bounds | None


@dataclass(frozen=True, slots=True)
class _FieldRule:
    """How to scan a field.

    ``nested`` are the rules of a message field. ``max_count`` limits how often the field occurs, or the elements of a
    list of numbers (0: only the limits of the whole message apply). ``element_bytes`` is the size of a packed element,
    0 for variable length. ``is_list`` marks typed lists, whose elements are counted together.
    """

    name: str
    nested: "Mapping[int, _FieldRule] | None" = None
    max_count: int = 0
    is_packed: bool = False
    element_bytes: int = 0
    is_list: bool = False
    is_raw: bool = False
    is_id: bool = False


_Rules = Mapping[int, _FieldRule]

_ELEMENT_BYTES = {wire.FIXED64: 8, wire.FIXED32: 4}


class WireScanner:
    """Scans the requests of one protocol.

    Args:
        request: descriptor of the request.
        raw: full names of the fields that hold raw tensor bytes.
        request_id: full name of the field that holds the request id.
        lists: full names of the messages whose repeated fields, shapes excepted, are typed lists.
        limits: the configurable limits.
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
        self._name = request.full_name
        self._max_elements = limits.elements
        self._raw = raw
        self._request_id = request_id
        self._lists = lists
        self._by_message: dict[str, dict[int, _FieldRule]] = {}
        self._rules = self._rules_of(request)

    def scan(self, message: bytes) -> Template | None:
        """Return the template of ``message``; None if it has typed lists or unknown fields, or two request ids.

        Raises:
            InvalidInputError: a limit is exceeded, or the bytes are no message.
        """
        scan = _Scan(message, self._max_elements)
        try:
            scan.fields(0, len(message), self._rules)
        except wire.MalformedError:
            raise malformed(self._name) from None
        return scan.template()

    def outline(self, message: bytes) -> bytes | None:
        """Return ``message`` without the contents of its tensors.

        None if more than `_MAX_OUTLINE_FIELDS` other fields or `_MAX_OUTLINE_BYTES` are in it, so that this takes some
        microseconds at most; or if it has unknown fields, or is no message.
        """
        try:
            content = _Outline(message).of(0, len(message), self._rules)
        except wire.MalformedError:
            return None
        return content if len(content) <= _MAX_OUTLINE_BYTES else None

    def _rules_of(self, message: Descriptor) -> dict[int, _FieldRule]:
        rules = self._by_message.get(message.full_name)
        if rules is None:
            # Stored before the fields are visited, because messages may nest themselves.
            rules = self._by_message[message.full_name] = {}
            for field in message.fields:
                self._add_rules(rules, message, field)
        return rules

    def _add_rules(self, rules: dict[int, _FieldRule], message: Descriptor, field: FieldDescriptor) -> None:
        wire_type = wire.element_wire_type(field)
        is_list = message.full_name in self._lists and field.is_repeated and field.name != "shape"
        rule = _FieldRule(
            name=field.name,
            nested=None if field.message_type is None else self._rules_of(field.message_type),
            max_count=0 if is_list or not field.is_repeated else _max_count(field),
            is_list=is_list,
            is_raw=field.full_name in self._raw,
            is_id=field.full_name == self._request_id,
        )
        rules[field.number << 3 | wire_type] = rule
        if field.is_repeated and wire_type != wire.LENGTH:
            # Parsers accept lists of numbers both packed and unpacked.
            packed = _FieldRule(
                name=rule.name,
                max_count=rule.max_count,
                is_packed=True,
                element_bytes=_ELEMENT_BYTES.get(wire_type, 0),
                is_list=rule.is_list,
            )
            rules[wire.length_tag(field.number)] = packed


class _Outline:
    """One pass over a message that leaves out the contents of tensors. Raises `wire.MalformedError` to give up."""

    __slots__ = ("_left", "_message")

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._left = _MAX_OUTLINE_FIELDS

    def of(self, position: int, end: int, rules: _Rules) -> bytes:
        """Return what is to be kept of the message between ``position`` and ``end``."""
        message, parts = self._message, list[bytes]()
        while position < end:
            begin = position
            tag, content = wire.read_varint(message, position)
            rule = rules.get(tag)
            self._left -= 1
            if rule is None or self._left < 0:
                raise wire.MalformedError
            start, position = wire.content_bounds(message, tag & 7, content)
            if position > end:
                raise wire.MalformedError
            if rule.nested is not None:
                inner = self.of(start, position, rule.nested)
                parts += (message[begin:content], wire.varint(len(inner)), inner)
            elif not (rule.is_raw or rule.is_list):
                parts.append(message[begin : min(position, start + _MAX_OUTLINE_BYTES + 1)])
        return b"".join(parts)


def malformed(message_name: str) -> InvalidInputError:
    """Return the error for bytes that are no ``message_name``."""
    return InvalidInputError(f"the message is not a valid {message_name}")


def _too_many_fields() -> InvalidInputError:
    return InvalidInputError(f"the message: expected at most {MAX_FIELDS} fields, got more")


def _max_count(field: FieldDescriptor) -> int:
    if field.name == "shape":
        return MAX_DIMENSIONS
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return MAX_PARAMETERS if is_map else MAX_TENSORS


def _prepend_path(error: InvalidInputError, rule: _FieldRule, counts: Mapping[str, int]) -> None:
    """Prepend the field of ``rule``, which holds the message that ``error`` is about, to the path in ``error``."""
    position = f"[{counts[rule.name] - 1}]" if rule.max_count else ""
    if error.field:
        error.field = f"{rule.name}{position}.{error.field}"


class _Scan:
    """One pass over a message."""

    __slots__ = ("_elements", "_fields", "_has_template", "_max_elements", "_message", "_raw", "_request_id")

    def __init__(self, message: bytes, max_elements: int) -> None:
        self._message = message
        self._max_elements = max_elements
        self._fields = 0
        self._elements = 0
        self._raw: list[Bounds] = []
        self._request_id: Bounds | None = None
        self._has_template = True

    def fields(self, position: int, end: int, rules: _Rules) -> None:
        """Scan the fields of one message, which lies between ``position`` and ``end``."""
        message = self._message
        counts: dict[str, int] = {}
        while position < end:
            tag = message[position]
            position += 1
            if tag >= _CONTINUES:
                tag, position = wire.read_varint(message, position - 1)
            rule = rules.get(tag)
            if rule is None:
                position = self._skip_unknown(tag, position, end)
                continue
            if tag & 7 != wire.LENGTH or position >= end:
                start, position = wire.content_bounds(message, tag & 7, position)
            elif (size := message[position]) < _CONTINUES:
                # Most lengths take one byte; reading it here saves two calls a field.
                start = position + 1
                position = start + size
            else:
                size, start = wire.read_varint(message, position)
                position = start + size
            if position > end:
                raise wire.MalformedError
            if rule.is_list:
                self._count_list(rule, start, position)
            else:
                self._field(rule, start, position, counts)

    def _field(self, rule: _FieldRule, start: int, end: int, counts: dict[str, int]) -> None:
        """Count a field that is no typed list, and scan what it holds."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise _too_many_fields()
        if rule.max_count:
            number = self._packed_elements(rule, start, end) if rule.is_packed else 1
            counts[rule.name] = count = counts.get(rule.name, 0) + number
            if count > rule.max_count:
                msg = f"{rule.name}: expected at most {rule.max_count}, got more"
                raise InvalidInputError(msg, field=rule.name)
        if rule.nested is not None:
            try:
                self.fields(start, end, rule.nested)
            except InvalidInputError as error:
                _prepend_path(error, rule, counts)
                raise
        elif rule.is_raw:
            self._raw.append((start, end))
        elif end - start > MAX_TEXT_BYTES:
            msg = f"{rule.name}: expected at most {MAX_TEXT_BYTES} bytes, got {end - start}"
            raise InvalidInputError(msg, field=rule.name)
        elif rule.is_id:
            self._has_template = self._has_template and self._request_id is None
            self._request_id = (start, end)

    def _count_list(self, rule: _FieldRule, start: int, end: int) -> None:
        """Count the elements of a typed list, or one element if the list is not packed."""
        number = 1
        if rule.is_packed:
            self._count_field()
            number = self._packed_elements(rule, start, end)
        self._has_template = False
        self._elements += number
        if self._elements > self._max_elements:
            msg = (
                f"expected at most {self._max_elements} elements in typed lists, got more; "
                "send the tensor's bytes (raw, raw_input_contents) instead"
            )
            raise InvalidInputError(msg, field=rule.name)

    def _count_field(self) -> None:
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise _too_many_fields()

    def _packed_elements(self, rule: _FieldRule, start: int, end: int) -> int:
        size = end - start
        if rule.element_bytes:
            return size // rule.element_bytes
        # Each element ends with the only byte of it that does not continue it.
        if size <= _MAX_TRANSLATED_BYTES:
            return len(self._message[start:end].translate(None, _CONTINUATION_BYTES))
        return int(np.count_nonzero(np.frombuffer(self._message, np.int8, size, start) >= 0))

    def _skip_unknown(self, tag: int, position: int, end: int) -> int:
        """Skip a field that is not in the contract; a group with everything in it. Return the position after it."""
        self._has_template = False
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
            if position > end or len(open_groups) > _MAX_GROUP_DEPTH:
                raise wire.MalformedError
            if not open_groups:
                return position
            tag, position = wire.read_varint(self._message, position)

    def template(self) -> Template | None:
        """Return the template of the message, None if it has none."""
        if not self._has_template:
            return None
        fixed: list[tuple[bytes, int]] = []
        position = 0
        variable = self._raw if self._request_id is None else [*self._raw, self._request_id]
        for start, end in (*sorted(variable), (len(self._message), 0)):
            if start > position:
                fixed.append((self._message[position:start], position))
            position = end
        return Template(tuple(fixed), tuple(self._raw), self._request_id)


def parse(kind: type[Parsed], message: bytes) -> Parsed:
    """Parse a message of bounded size or number of fields. Raises `InvalidInputError` if it is malformed."""
    try:
        return kind.FromString(message)
    except (DecodeError, ValueError, RecursionError):
        # Protobuf's Python implementation raises the last two, for invalid UTF-8 and for deep groups.
        raise malformed(kind.DESCRIPTOR.full_name) from None
