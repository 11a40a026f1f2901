"""Options of ``inferd batch`` as values."""

import pytest

from inferd.cli import batch_arguments as arguments


def test_pairs():
    """A value may have further equals signs; each name is given once."""
    assert arguments.pairs("--map", ["X=a=b", "y=c,d"], "INPUT=COLUMN") == {"X": "a=b", "y": "c,d"}
    with pytest.raises(ValueError, match="--map X: expected once, got a and b"):
        arguments.pairs("--map", ["X=a", "X=b"], "INPUT=COLUMN")


@pytest.mark.parametrize("text", ["X", "X=", "=a", ""])
def test_incomplete_pairs(text):
    """The error has the form that is expected and what came."""
    with pytest.raises(ValueError, match=f'--map: expected INPUT=COLUMN, got "{text}"'):
        arguments.pairs("--map", [text], "INPUT=COLUMN")


def test_outputs():
    """Without a column an output keeps its name."""
    assert arguments.outputs(["label=digit", "probabilities"]) == {"label": "digit", "probabilities": "probabilities"}
    with pytest.raises(ValueError, match='--output: expected NAME or NAME=COLUMN, got "label="'):
        arguments.outputs(["label="])


def test_names():
    """Names come with commas and repeated, each counts once; quotes hold a comma."""
    assert arguments.names("--columns", ["a, b", '"c,d"', "a"]) == ("a", "b", "c,d")
    with pytest.raises(ValueError, match='--columns: expected names with commas between them, got "a,,b"'):
        arguments.names("--columns", ["a,,b"])


def test_join():
    """No option joins nothing, ``all`` everything; beside others ``all`` is a name."""
    assert arguments.join(None) is None
    assert arguments.join(["all"]) == ()
    assert arguments.join(["id", "all"]) == ("id", "all")


def test_on_error():
    """Skip, stop or a number."""
    assert [arguments.on_error(text) for text in ("skip", "stop", "10")] == ["skip", "stop", 10]
    with pytest.raises(ValueError, match='--on-error: expected skip, stop or a number of rows, got "-1"'):
        arguments.on_error("-1")


def test_delimiter():
    """One character, or tab by its name."""
    assert [arguments.delimiter(text) for text in (None, ";", "\t", "tab", r"\t")] == [None, ";", "\t", "\t", "\t"]
    for text in ("", ";;", '"', "\n", "é"):
        with pytest.raises(ValueError, match=f'--delimiter: expected one character of ASCII, or tab, got "{text}"'):
            arguments.delimiter(text)
