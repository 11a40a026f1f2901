"""References to tests in docs/security.md."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_referenced_tests_exist():
    """Moving a test requires changing its reference."""
    named = set(re.findall(r"`(tests/\S+\.py)`", (ROOT / "docs/security.md").read_text()))
    assert len(named) > 20
    assert [path for path in named if not (ROOT / path).is_file()] == []
