"""docs/robustness.md names only tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_test_it_names_exists():
    """A renamed test takes its row along."""
    named = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs/robustness.md").read_text())
    assert len(named) > 30
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / "tests" / path).read_text()]
    assert missing == []
