"""Patterns fit what their stars say, and no name takes long to find out."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.security.authorization.policy import matches

patterns = st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), max_size=9).map("".join)
names = st.text("ab/", max_size=12)


def _by_trying_everything(pattern: str, name: str) -> bool:
    stars = {"**": ".*", "*": "[^/]*"}
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.fullmatch("".join(stars.get(part) or re.escape(part) for part in parts), name) is not None


@settings(max_examples=1000)
@given(pattern=patterns.filter(lambda pattern: pattern != "*"), name=names)
def test_nothing_is_missed_by_not_trying_everything(pattern: str, name: str) -> None:
    """Neither is anything found that should not be."""
    assert matches(pattern, name) == _by_trying_everything(pattern, name)


def test_names_that_almost_fit_are_soon_refused() -> None:
    """Callers may choose names, and the thread that serves all of them looks at them."""
    for star in ("*", "**"):
        assert not matches("jwt:" + f"{star}-" * 20 + "x", "jwt:" + "-" * 250)
