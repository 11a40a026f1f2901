"""docs/robustness.md and the tests that it is about."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_it_names_exists():
    """A renamed test takes its row along."""
    named = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs/robustness.md").read_text())
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / "tests" / path).read_text()]
    assert missing == []


def test_it_names_every_robustness_test():
    """What is tried is told."""
    page = (ROOT / "docs/robustness.md").read_text()
    tests = {
        f"fault/{path.name}::{name}"
        for path in (ROOT / "tests/fault").glob("test_robustness_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(tests) > 20
    assert {test for test in tests if f"`{test}`" not in page} == set()
