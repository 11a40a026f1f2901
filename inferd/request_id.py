"""The id that a call goes by: in every line of the log about it, and for its caller."""

import itertools
import secrets
from collections.abc import MutableMapping

#: Where a call's annotations have it, `cleaned`.
KEY = "request_id"

#: Where they have the id in the request's message, if its metadata has named the call already.
OWN_KEY = "own_id"

_LONGEST = 128

_prefix = secrets.token_hex(4)
_numbers = itertools.count(1)


def cleaned(given: str) -> str:
    """Return what a caller has chosen as printable ASCII of bounded length, which does no harm wherever it goes."""
    if len(given) <= _LONGEST and given.isascii() and given.isprintable():
        return given
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in given[:_LONGEST])


def name_by_message(annotations: MutableMapping[str, object], own_id: str) -> None:
    """Take the id from the request's message, which is another name if the metadata has named the call."""
    annotations[OWN_KEY if KEY in annotations else KEY] = cleaned(own_id)


def of(annotations: MutableMapping[str, object]) -> str:
    """Return the call's id; one is made if its caller sent none. Any thread."""
    known = annotations.get(KEY)
    if known is None:
        known = annotations.setdefault(KEY, f"{_prefix}-{next(_numbers):x}")
    return str(known)


def log_fields(annotations: MutableMapping[str, object]) -> dict[str, object]:
    """Return the ids by which a line in the log belongs to a call; those of its trace if it is traced."""
    fields: dict[str, object] = {KEY: of(annotations)}
    fields |= {key: annotations[key] for key in ("trace_id", "span_id") if key in annotations}
    return fields
