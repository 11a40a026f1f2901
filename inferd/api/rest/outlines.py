"""Requests in JSON without the numbers of their tensors, found without looking at each byte in Python."""

from typing import Final

_DATA: Final = b'"data"'
#: Inputs of an outline, and the bytes of it.
_MAX_ARRAYS = 16
_MAX_BYTES = 2048
#: Longer texts are not searched: it would take a millisecond and more.
_MAX_SEARCHED_BYTES = 16 * 1024 * 1024
#: Brackets and spaces at the ends of an array.
_ENDS_BYTES = 128
_SPACES = b" \t\r\n"


def without_numbers(text: bytes | bytearray, end: int) -> bytes | None:
    """Return the JSON ``text[:end]`` with empty arrays for those of numbers that are its ``data``.

    None if it is not as short as an outline then, or if that is not clear. What is returned may be no valid request
    where the text is none.
    """
    if end > _MAX_SEARCHED_BYTES:
        return None
    parts: list[bytes | bytearray] = []
    position = 0
    for _ in range(_MAX_ARRAYS):
        name = text.find(_DATA, position, end)
        if name < 0:
            parts.append(text[position : min(end, position + _MAX_BYTES + 1)])
            outline = b"".join(parts)
            return outline if len(outline) <= _MAX_BYTES else None
        array = _array(text, name + len(_DATA), end)
        if array is None or array[0] - position > _MAX_BYTES:
            return None
        parts += (text[position : array[0]], b"[]")
        position = array[1]
    return None


def _array(text: bytes | bytearray, begin: int, end: int) -> tuple[int, int] | None:
    """Return where the array of numbers after the name ``data`` begins and ends; None if there is none."""
    # Arrays of numbers have no strings, so the next string is behind it.
    quote = text.find(b'"', begin, end)
    behind = end if quote < 0 else quote
    start = text.find(b"[", begin, min(behind, begin + _ENDS_BYTES))
    if start < 0:
        return None
    head = bytes(text[start : min(behind, start + _ENDS_BYTES)]).translate(None, _SPACES)
    depth = len(head) - len(head.lstrip(b"["))
    tail_start = max(start, behind - _ENDS_BYTES)
    tail = bytes(text[tail_start:behind])
    stop = max(tail.rfind(b"%d" % digit) for digit in range(10))
    if stop < 0:
        return None
    for _ in range(depth):
        stop = tail.find(b"]", stop + 1)
        if stop < 0:
            return None
    return start, tail_start + stop + 1
