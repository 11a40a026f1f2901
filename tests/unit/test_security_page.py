"""docs/security.md and the tests that it is about."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_it_names_exists():
    """A test that moves takes its row along."""
    named = set(re.findall(r"`(tests/\S+\.py)`", (ROOT / "docs/security.md").read_text()))
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).is_file()] == []
