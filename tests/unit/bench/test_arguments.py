"""The texts of options."""

import pytest

from inferd.bench import arguments
from inferd.bench.traffic import TrafficClass

DEFAULT = TrafficClass(name="requests", model="m", rows=2, timeout_s=3.0)


@pytest.mark.parametrize(
    ("text", "levels"),
    [("8", [8]), ("1,2,8", [1, 2, 8]), ("1:64:x4", [1, 4, 16, 64]), ("10:35:10", [10, 20, 30])],
)
def test_levels(text, levels):
    """One, a list, or a range that adds or multiplies."""
    assert arguments.concurrencies(text) == levels
    assert arguments.rates(text) == levels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '--concurrency: expected an integer of at least 1, got ""'),
        ("0", '--concurrency: expected an integer of at least 1, got "0"'),
        ("1.5", '--concurrency: expected an integer of at least 1, got "1.5"'),
        ("4,2", '--concurrency: expected ascending levels, got "4,2"'),
        ("1:9", '--concurrency: expected FIRST:LAST:STEP or FIRST:LAST:xFACTOR, got "1:9"'),
        ("1:9:x1", '--concurrency: expected FIRST up to LAST, and a factor above 1, got "1:9:x1"'),
        ("100001", "--concurrency: expected at most 100000, got 100001"),
        ("1:9999999:1", '--concurrency: expected at most 1000 levels, got "1:9999999:1"'),
    ],
)
def test_invalid_levels(text, message):
    """The option, what was expected and what came."""
    with pytest.raises(ValueError) as error:
        arguments.concurrencies(text)
    assert str(error.value) == message


def test_shapes():
    """Names may have colons, and inputs no dimensions but the rows."""
    assert arguments.shapes(["a:3,4", "b:0:7", "c:"]) == {"a": (3, 4), "b:0": (7,), "c": ()}


@pytest.mark.parametrize("text", ["a", ":3", "a:x", "a:3,-1"])
def test_invalid_shapes(text):
    """What was expected and what came."""
    with pytest.raises(ValueError, match="--shape: expected NAME:SIZE"):
        arguments.shapes([text])


def test_mix_takes_the_rest_from_the_other_options():
    """Each class has a name, its own or its text."""
    first, second = arguments.mix(["name=bulk,weight=3,rows=16,priority=2,timeout=0.5", "principal=bob"], DEFAULT)
    assert first == TrafficClass(name="bulk", model="m", weight=3.0, rows=16, priority=2, timeout_s=0.5)
    assert second == TrafficClass(name="principal=bob", model="m", rows=2, principal="bob", timeout_s=3.0)


def test_no_mix_is_one_class():
    """That of the other options."""
    assert arguments.mix([], DEFAULT) == (DEFAULT,)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["speed=1"], 'a key of name, model, version, weight, rows, priority, principal, timeout, got "speed=1"'),
        (["rows=0"], '--mix rows: expected an integer of at least 1, got "0"'),
        (["weight=0"], '--mix weight: expected a number above 0, got "0"'),
        (["weight=nan"], '--mix weight: expected a number above 0, got "nan"'),
        (["rows=1,rows=2"], '--mix: expected each key once, got "rows" again in "rows=1,rows=2"'),
        (["rows=1", "rows=1"], '--mix: expected different names, got "rows=1" twice; name=NAME sets one'),
    ],
)
def test_invalid_mix(texts, message):
    """The key, what was expected and what came."""
    with pytest.raises(ValueError) as error:
        arguments.mix(texts, DEFAULT)
    assert message in str(error.value)


@pytest.mark.parametrize("texts", [["a"], ["=f"], ["a="], ["a=f", "a=g"]])
def test_invalid_principals(texts):
    """A name and a file, each name once."""
    with pytest.raises(ValueError, match="--principal: expected"):
        arguments.principals(texts)
