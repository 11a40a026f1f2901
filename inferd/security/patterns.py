"""Patterns of names, as rules have them."""

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join(_WILDCARDS.get(part) or re.escape(part) for part in parts), re.DOTALL)


#: As in paths, so that ``spiffe://prod/ns/*/sa/web`` does not match an account that somebody calls ``a/sa/web``.
_WILDCARDS = {"**": ".*", "*": "[^/]*"}


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` is for the whole of ``name``.

    ``*`` stands for any characters but ``/`` and ``**`` for any at all; a pattern that is only ``*`` is for every name.
    """
    return pattern == "*" or _compiled(pattern).fullmatch(name) is not None
