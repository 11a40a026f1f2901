"""References to tests in docs/robustness.md."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_referenced_tests_exist():
    """Renaming a test requires renaming its reference."""
    named = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs/robustness.md").read_text())
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / "tests" / path).read_text()]
    assert missing == []


def test_robustness_tests_are_referenced():
    """Each of them has a row."""
    page = (ROOT / "docs/robustness.md").read_text()
    tests = {
        f"fault/{path.name}::{name}"
        for path in (ROOT / "tests/fault").glob("test_robustness_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(tests) > 20
    assert {test for test in tests if f"`{test}`" not in page} == set()
