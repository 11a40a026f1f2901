"""Damaged configurations of Triton: each is read, or refused with a line and a reason."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.models.triton import TritonConfigError, read_config
from tests.server import ROOT

TEXTS = [file.read_text() for file in sorted((ROOT / "tests/data/triton").glob("*/config.pbtxt"))]

WORDS = [*"{}[]<>:;,=#'\"\\$“\n", "", "${x}", "{{x}}", "\ufeff", "\x00", "-1", "1.5", "9" * 20, "true", "TYPE_BYTES"]
WORDS += ["input", "inputs", "name", "key", "[extension]:", "[type.googleapis.com/inference.ModelConfig]{"]


@st.composite
def damaged(draw):
    """Return a configuration of the corpus from which some parts are cut, and into which others are put."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 12))
        text = text[:start] + draw(st.sampled_from(WORDS) | st.text(max_size=3)) + text[start + cut :]
    return text


# protobuf unescapes texts with a codec of Python that warns of unknown escapes.
@pytest.mark.filterwarnings("ignore:.*invalid.*escape sequence:DeprecationWarning")
@given(damaged())
def test_is_read_or_refused_with_a_line(text):
    """No text makes the reader fail in another way, and the line is one of the file."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config.pbtxt"
        file.write_text(text, encoding="utf-8", newline="")
        reason = _refusal(file)
    if reason is not None:
        found = re.fullmatch(r"config\.pbtxt line (\d+): (.+)", reason)
        assert found, reason
        assert 1 <= int(found[1]) <= text.count("\n") + 1


def _refusal(file: Path) -> str | None:
    try:
        read_config(file)
    except TritonConfigError as error:
        return str(error)
    return None
