"""Patterns match what a backtracking search would, in linear time."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.security.authorization.policy import matches

patterns = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), max_size=9).map("".join)
names = st.text("ab/", max_size=12)


def _matches_by_backtracking(pattern: str, name: str) -> bool:
    stars = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.fullmatch("".join(stars.get(part) or re.escape(part) for part in parts), name) is not None


@settings(max_examples=1000)
@given(pattern=patterns.filter(lambda pattern: pattern != "*"), name=names)
def test_matches_as_with_backtracking(pattern: str, name: str) -> None:
    """Neither more nor fewer names."""
    assert matches(pattern, name) == _matches_by_backtracking(pattern, name)


def test_near_misses_do_not_backtrack() -> None:
    """Callers choose names, and the poll thread matches them."""
    for star in ("*", "**"):
        assert not matches("jwt:" + f"{star}-" * 20 + "x", "jwt:" + "-" * 250)
