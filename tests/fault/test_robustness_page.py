"""The page that lists what is tried, held to the tests that there are."""

import re

from tests.server import ROOT

PAGE = ROOT / "docs" / "robustness.md"


def test_every_test_on_the_page_exists():
    """A test that is renamed takes its line along."""
    references = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text(encoding="utf-8"))
    assert references
    missing = [
        f"{path}::{name}"
        for path, name in references
        if f"\ndef {name}(" not in (ROOT / "tests" / path).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_robustness_test_is_on_the_page():
    """What is tried is told."""
    page = PAGE.read_text(encoding="utf-8")
    for path in sorted((ROOT / "tests" / "fault").glob("test_robustness_*.py")):
        if path.name == "test_robustness_page.py":
            continue
        for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"{path.name}::{name}" in page
