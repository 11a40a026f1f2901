"""Remove the numbers of tensors from requests in JSON, with searches that run in C."""

from typing import Final

_DATA: Final = b'"data"'
#: Limits on the inputs and bytes of an outline.
_MAX_ARRAYS = 16
_MAX_BYTES = 2048
#: Longer texts are not searched: it would take a millisecond and more.
_MAX_SEARCHED_BYTES = 16 * 1024 * 1024
#: Brackets and spaces at the ends of an array.
_ENDS_BYTES = 128
_SPACES = b" \t\r\n"


def without_numbers(text: bytes | bytearray, end: int) -> bytes | None:
    """Return the JSON ``text[:end]`` with each ``data`` array of numbers replaced by an empty one.

    None if the result is too long, or the arrays are not found. Invalid text may give an invalid outline.
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
    """Return the bounds of the array of numbers after the name ``data``, or None."""
    # Arrays of numbers contain no strings, so the next string follows the array.
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
