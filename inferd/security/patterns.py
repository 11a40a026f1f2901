"""Patterns of names, as rules have them."""

import re
from functools import lru_cache


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    *others, last = pattern.split("**")
    if not others:
        return re.compile(_ending(last))
    first, *between = others
    return re.compile(
        _beginning(first) + "".join(f"(?>.*?{_beginning(part)})" for part in between) + f".*{_ending(last)}", re.DOTALL
    )


def _beginning(part: str) -> str:
    """Write ``part``, which has single stars only, so that it ends as early as it can.

    What comes after it is free to be anything, so that the first place that fits is as good as any: to try no other
    (``(?>…)``) keeps names that somebody has made up for it from taking for ever.
    """
    first, *others = part.split("*")
    return re.escape(first) + "".join(f"(?>[^/]*?{re.escape(other)})" for other in others)


def _ending(part: str) -> str:
    """Write ``part``, which has single stars only, so that it ends with the name."""
    first, star, last = part.rpartition("*")
    return _beginning(first) + ("[^/]*" if star else "") + re.escape(last)


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` is for the whole of ``name``.

    ``*`` stands for any characters but ``/``, as in paths, so that ``spiffe://prod/ns/*/sa/web`` does not match an
    account that somebody calls ``a/sa/web``; ``**`` for any at all. A pattern that is only ``*`` is for every name.
    """
    return pattern == "*" or _compiled(pattern).fullmatch(name) is not None
