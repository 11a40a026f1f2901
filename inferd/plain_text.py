"""Escape and truncate untrusted text from callers and files for logs, errors and terminals.

Control characters break lines and control terminals; others change the text direction or are invisible.
A leaf: any module may import it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

#: Unicode categories to escape: control, format, surrogate, private use, unassigned, line and paragraph separators.
#: Other spaces are kept.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_NOT_ASCII_PRINTABLE = re.compile(r"[^ -~]")
_MAX_CHARACTERS = 80
_MAX_ITEMS = 8


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with unsafe characters, except ``keep``, as ``\x1b``, ``\u202e`` or ``\U000e0001``.

    Other text is unchanged, backslashes too, so that escaping is idempotent.
    """
    return replaced(text, lambda character: character if character in keep else _escape(character))


def replaced(text: str, replacement: Callable[[str], str]) -> str:
    """Return ``text`` with ``replacement`` applied to each unsafe character."""
    if text.isprintable():
        return text
    return _NOT_ASCII_PRINTABLE.sub(
        lambda found: replacement(found[0]) if unicodedata.category(found[0]) in _UNSAFE else found[0], text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def clipped(text: str, most: int = _MAX_CHARACTERS) -> str:
    """Return the first ``most`` characters of ``text``, with an ellipsis if there are more."""
    return text if len(text) <= most else f"{text[:most]}…"


def quoted(text: str) -> str:
    """Return ``text`` clipped, escaped and in quotation marks."""
    return f'"{escaped(clipped(text))}"'


def listed(items: Iterable[object], *, most: int = _MAX_ITEMS, separator: str = ", ") -> str:
    """Join the first ``most`` of ``items``, each clipped, with an ellipsis for further ones, which are not consumed."""
    shown: list[str] = []
    for item in items:
        if len(shown) == most:
            shown.append("…")
            break
        text = str(item)
        shown.append(text if len(text) <= _MAX_CHARACTERS else clipped(text))
    return separator.join(shown)
