"""Makes text that a caller or a file brought harmless wherever it is shown: logs, errors, terminals.

Control characters end lines and paint terminals, others turn the direction of what follows or are not to be seen at
all. A leaf: everyone may import it.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

#: Characters that mean something else than what they look like: control, format, surrogate, private use, unassigned,
#: and line and paragraph separators. Other spaces stay.
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})

_NOT_ASCII_PRINTABLE = re.compile(r"[^ -~]")
_MOST_CHARACTERS = 80
_MOST_ITEMS = 8


def escaped(text: str, *, keep: str = "") -> str:
    r"""Return ``text`` with ``\x1b``, ``\u202e`` or ``\U000e0001`` for what cannot be seen, apart from ``keep``.

    Text without such characters stays as it is, backslashes too: so to escape twice does no harm.
    """
    return replaced(text, lambda character: character if character in keep else _visible(character))


def replaced(text: str, write: Callable[[str], str]) -> str:
    """Return ``text`` with what ``write`` makes of each character that cannot be seen."""
    if text.isprintable():
        return text
    return _NOT_ASCII_PRINTABLE.sub(
        lambda found: write(found[0]) if unicodedata.category(found[0]) in _HARMFUL else found[0], text
    )


def _visible(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def clipped(text: str, most: int = _MOST_CHARACTERS) -> str:
    """Return at most ``most`` characters of ``text``, and an ellipsis if there are more."""
    return text if len(text) <= most else f"{text[:most]}…"


def listed(items: Iterable[object], *, most: int = _MOST_ITEMS, separator: str = ", ") -> str:
    """Write the first ``most`` of ``items``, each clipped, and an ellipsis if there are more; takes no more of them."""
    shown: list[str] = []
    for item in items:
        if len(shown) == most:
            shown.append("…")
            break
        shown.append(clipped(str(item)))
    return separator.join(shown)
