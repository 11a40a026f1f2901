"""Cut long strings, such as files in base64, out of JSON, so that parsing the rest is a short step.

Parsing all at once would hold the interpreter lock for long, and would make as many objects as a caller likes.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any

from inferd.api.json_text import QUICK_BYTES, read_object
from inferd.errors import InvalidInputError

#: Longer strings are cut out, unless they have escapes.
_SHORT_BYTES = 4096

#: Bytes that are searched in one step.
_STEP = 1 << 20


@dataclass(slots=True)
class LongTexts:
    """Strings that were cut out, as views of the body, by the mark that replaces them; callers cannot guess it."""

    _prefix: str = field(default_factory=lambda: f"long text {secrets.token_hex(8)} ")
    _found: dict[str, memoryview] = field(default_factory=dict)

    def add(self, text: memoryview) -> bytes:
        """Return the mark for ``text``."""
        mark = f"{self._prefix}{len(self._found)}"
        self._found[mark] = text
        return mark.encode()

    def get(self, value: object) -> memoryview | None:
        """Return the string that the mark ``value`` replaces; None if it is no mark."""
        return self._found.get(value) if isinstance(value, str) else None


def read_with_long_texts(body: bytes | bytearray) -> tuple[dict[str, Any], LongTexts]:
    """Parse a JSON object with marks in place of its long strings. Raises `InvalidInputError`."""
    view, texts = memoryview(body).toreadonly(), LongTexts()
    if len(body) <= QUICK_BYTES:
        return read_object(view), texts
    kept, start, position = bytearray(), 0, 0
    while (quote := _find_quote(body, position, start, len(kept))) is not None:
        end = _end_of_string(body, quote + 1)
        if end - quote > _SHORT_BYTES and body.find(b"\\", quote, min(end, quote + QUICK_BYTES)) < 0:
            kept += view[start : quote + 1]
            kept += texts.add(view[quote + 1 : end])
            start = end
        position = end + 1
    kept += view[start:]
    return read_object(bytes(kept)), texts


def _find_quote(body: bytes | bytearray, position: int, start: int, kept: int) -> int | None:
    """Return where the next string begins, or None. Raises `InvalidInputError` if too much else is in the body."""
    most = start + QUICK_BYTES - kept
    quote = body.find(b'"', position, most)
    if quote >= 0:
        return quote
    if len(body) > most:
        raise InvalidInputError(f"the body: expected at most {QUICK_BYTES} bytes beside files in base64")
    return None


def _end_of_string(body: bytes | bytearray, start: int) -> int:
    """Return the position of the quote that ends the string at ``start``; the end of the body without one."""
    position = start
    while position < len(body):
        quote = body.find(b'"', position, position + _STEP)
        if quote >= 0 and not _is_escaped(body, start, quote):
            return quote
        if quote >= 0 and quote - start > QUICK_BYTES:
            raise InvalidInputError(f"the body: expected strings of at most {QUICK_BYTES} bytes, except base64")
        position = position + _STEP if quote < 0 else quote + 1
    return len(body)


def _is_escaped(body: bytes | bytearray, start: int, quote: int) -> bool:
    """Return True if an odd number of backslashes precedes the quote; at most 64 are counted."""
    before = bytes(body[max(start, quote - 64) : quote])
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1
