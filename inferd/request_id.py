"""The id that a call goes by: in every line of the log about it, and for its caller."""

import itertools
import secrets
import threading
from typing import Protocol

from inferd.call_facts import CallFacts

#: The name of the id in lines of the log.
KEY = "request_id"

#: Where a call's annotations have the id in the request's message, if its metadata has named the call already.
OWN_KEY = "own_id"

_LONGEST = 128

_prefix = secrets.token_hex(4)
_numbers = itertools.count(1)
_naming = threading.Lock()


class Named(Protocol):
    """A call; its facts have its id, `cleaned`."""

    @property
    def facts(self) -> CallFacts:
        """What nearly every call has to tell."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """What only some have."""
        ...


def cleaned(given: str) -> str:
    """Return what a caller has chosen as printable ASCII of bounded length, which does no harm wherever it goes."""
    if len(given) <= _LONGEST and given.isascii() and given.isprintable():
        return given
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in given[:_LONGEST])


def name_by_message(call: Named, own_id: str) -> None:
    """Take the id from the request's message, which is another name if the metadata has named the call."""
    if call.facts.request_id is None:
        call.facts.request_id = cleaned(own_id)
    else:
        call.annotations[OWN_KEY] = cleaned(own_id)


def of(facts: CallFacts) -> str:
    """Return a call's id; one is made if its caller sent none. Any thread."""
    known = facts.request_id
    if known is None:
        with _naming:
            known = facts.request_id
            if known is None:
                known = facts.request_id = f"{_prefix}-{next(_numbers):x}"
    return known


def log_fields(call: Named) -> dict[str, object]:
    """Return the ids by which a line in the log belongs to a call; those of its trace if it is traced."""
    fields: dict[str, object] = {KEY: of(call.facts)}
    fields |= {key: call.annotations[key] for key in ("trace_id", "span_id") if key in call.annotations}
    return fields
