"""Names in options: those that are not known are refused, with the one that may be meant."""

from collections.abc import Iterable
from difflib import get_close_matches

from inferd.batch.errors import UsageError
from inferd.plain_text import escaped, listed


def check_known(option: str, name: str, known: Iterable[str], kind: str = "column", *, advice: str = "") -> None:
    """Raise `UsageError` unless ``name`` is among those ``known``; ``option`` is where it was given.

    ``advice`` is what else may be done about it.
    """
    known = list(known)
    if name not in known:
        close = get_close_matches(name, known, 1)
        hint = (f"; did you mean {close[0]}?" if close else "") + (f"; {advice}" if advice else "")
        shown = listed(map(escaped, known)) or "none"
        raise UsageError(f'{option}: there is no {kind} "{escaped(name)}", only {shown}{hint}')
