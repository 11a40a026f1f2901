"""Hostile fields that any message may contain: unknown, malformed or needlessly long ones."""

import random
import struct
from functools import partial

from benchmarks.hostile.kind import Build, filled, long_varint, numbered
from inferd import wire

#: No message has a field of this number.
_UNKNOWN = 3000
_LARGEST_NUMBER = 2**29 - 1
_HIGH, _LOW = b"\xff", b"\x00"


def unknown_fields() -> dict[str, Build]:
    """Return kinds with unknown fields, which a parser skips."""
    start, end = _tag(wire.GROUP_START), _tag(wire.GROUP_END)
    return {
        "unknown varints": filled(b"", _tag(wire.VARINT) + b"\x00"),
        "unknown ten-byte varints": filled(b"", _tag(wire.VARINT) + long_varint(2**64 - 1)),
        "unknown empty fields": filled(b"", _tag(wire.LENGTH) + b"\x00"),
        "unknown fixed32": filled(b"", _tag(wire.FIXED32) + bytes(4)),
        "unknown fixed64": filled(b"", _tag(wire.FIXED64) + bytes(8)),
        "unknown one field": partial(_one_field, _tag(wire.LENGTH)),
        "unknown numbers of fields": numbered(b"", lambda number: wire.varint((_UNKNOWN + number) << 3) + b"\x00"),
        "unknown largest number": filled(b"", wire.varint(_LARGEST_NUMBER << 3) + b"\x00"),
        "unknown nested fields": partial(_nested, _tag(wire.LENGTH)),
        "groups beside each other": filled(b"", start + end),
        "groups in each other": partial(_deep, start, end),
        "groups in groups of 50": filled(b"", start * 50 + end * 50),
        "groups never closed": filled(b"", start),
        "groups never opened": filled(b"", end),
        "groups with fields": filled(b"", start + _tag(wire.VARINT) + b"\x00" + end),
    }


def unknown_inside() -> dict[str, Build]:
    """Return the unknown fields that are tried at every depth of a message."""
    every = unknown_fields()
    return {
        name: every[name]
        for name in ("unknown varints", "unknown empty fields", "groups beside each other", "groups in each other")
    }


def broken() -> dict[str, Build]:
    """Return malformed kinds, and valid ones that no serializer writes."""
    return {
        "zeros": filled(b"", _LOW),
        "ones": filled(b"", _HIGH),
        "garbage": lambda nbytes: random.Random(nbytes).randbytes(nbytes),
        "printable garbage": lambda nbytes: (b"The quick brown fox jumps over the lazy dog. " * (nbytes // 45 + 1))[
            :nbytes
        ],
        "reserved wire type 6": filled(b"", b"\x0e\x00"),
        "reserved wire type 7": filled(b"", b"\x0f\x00"),
        "overlong tags": filled(b"", b"\x8a\x80\x80\x80\x00\x00"),
        "overlong lengths": filled(b"", b"\x0a\x80\x80\x80\x80\x00"),
        "tags of ten bytes": filled(b"", long_varint(1 << 3 | wire.LENGTH) + b"\x00"),
        "varint never ending": filled(b"\x08", b"\x80"),
        "field longer than the message": lambda nbytes: b"\x0a" + wire.varint(2 * nbytes) + bytes(nbytes),
        "length above 2 GiB": lambda nbytes: b"\x0a" + wire.varint(2**31 + nbytes) + bytes(nbytes),
        "length near 2^64": lambda nbytes: b"\x0a" + long_varint(2**64 - 1) + bytes(nbytes),
        "half a field at the end": lambda nbytes: b"\x0a\x00" * (nbytes // 2) + b"\x0a",
    }


def _tag(wire_type: int) -> bytes:
    return wire.varint(_UNKNOWN << 3 | wire_type)


def _one_field(tag: bytes, nbytes: int) -> bytes:
    return tag + wire.varint(nbytes) + bytes(nbytes)


def _nested(tag: bytes, nbytes: int) -> bytes:
    """Nested fields, whose lengths are written in five bytes each, so that building them copies nothing."""
    size = len(tag) + 5
    depth = max(1, nbytes // size)
    return b"".join(tag + _five_bytes((depth - level - 1) * size) for level in range(depth))


def _five_bytes(value: int) -> bytes:
    return struct.pack("5B", *(value >> 7 * index & 0x7F | (0x80 if index < 4 else 0) for index in range(5)))


def _deep(start: bytes, end: bytes, nbytes: int) -> bytes:
    depth = max(1, nbytes // (len(start) + len(end)))
    return start * depth + end * depth
