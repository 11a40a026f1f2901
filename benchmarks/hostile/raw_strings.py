"""Invalid text, and BYTES tensors with wrong lengths."""

from benchmarks.hostile.kind import Build, filled

NOT_UTF8 = b"\xed\xa0\x80"


def raw_strings() -> dict[str, Build]:
    """Return raw BYTES tensors: elements after their lengths in four little-endian bytes."""
    return {
        "empty elements": filled(b"", bytes(4)),
        "elements of one byte": filled(b"", b"\x01\x00\x00\x00a"),
        "elements of three bytes that are not UTF-8": filled(b"", b"\x03\x00\x00\x00" + NOT_UTF8),
        "one element": lambda nbytes: nbytes.to_bytes(4, "little") + bytes(nbytes),
        "a length beyond the end": lambda nbytes: b"\xff\xff\xff\x7f" + bytes(nbytes),
        "half a length at the end": lambda nbytes: bytes(nbytes // 4 * 4) + b"\x00\x00",
    }
