"""Validation of arguments before anything is sent."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest

from inferd.arguments import checked_metadata, checked_timeout, merged


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, None),
        (5, 5.0),
        (0, 0.0),
        (0.25, 0.25),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3.0),
        (Fraction(1, 2), 0.5),
        (math.inf, None),
        (1e300, None),
        (10**400, None),
    ],
)
def test_timeouts(given, taken):
    """Any kind of number; infinity, and numbers as large, mean none."""
    assert checked_timeout(given) == taken


@pytest.mark.parametrize("given", [math.nan, np.float64("nan"), -1, -1e-9, -math.inf, -(10**400)])
def test_rejects_invalid_timeouts(given):
    """NaN and negative numbers."""
    with pytest.raises(ValueError, match=r"^timeout_s is .*, expected at least 0"):
        checked_timeout(given)


@pytest.mark.parametrize("given", [True, "5", b"5", Decimal(5), [5], np.array([1.0, 2.0]), np.bool_(True)])
def test_rejects_other_types_as_timeouts(given):
    """The error names the argument and the type."""
    with pytest.raises(TypeError, match=f"^timeout_s: expected a number, got {type(given).__name__}"):
        checked_timeout(given)


@pytest.mark.parametrize(
    "given",
    [
        {"X-Team": "a", "trace-bin": b"\0\xff"},
        [("X-Team", "a"), ("trace-bin", b"\0\xff")],
        (pair for pair in (("X-Team", "a"), ["trace-bin", b"\0\xff"])),
    ],
)
def test_metadata(given):
    """Mappings and pairs, with keys in lower case."""
    assert checked_metadata(given) == (("x-team", "a"), ("trace-bin", b"\0\xff"))


def test_keys_may_repeat():
    """As in gRPC; entries of a call replace all of the client's with the same key."""
    own = checked_metadata([("a", "1"), ("a", "2"), ("b", "3")])
    assert own == (("a", "1"), ("a", "2"), ("b", "3"))
    assert merged(own, (("a", "4"), ("a", "5"))) == (("b", "3"), ("a", "4"), ("a", "5"))


@pytest.mark.parametrize("key", ["", "a b", ":path", "é", "a\n", "grpc-timeout", "GRPC-a", "te", "Content-Type", "a/b"])
def test_rejects_invalid_keys(key):
    """Keys that gRPC rejects, drops or reserves, by name."""
    with pytest.raises(ValueError, match=r'^metadata "'):
        checked_metadata({key: "1"})


@pytest.mark.parametrize("value", ["é", "a\nb", "\0", "\x7f"])
def test_rejects_invalid_values(value):
    """The error names the key; the value may be secret."""
    with pytest.raises(ValueError, match=r'^metadata "x-secret": expected printable ASCII') as caught:
        checked_metadata({"x-secret": value})
    assert value not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a-bin": "text"}, 'metadata "a-bin": expected bytes, as its key ends in -bin, got str'),
        ({"a": b"bytes"}, 'metadata "a": expected a str, got bytes'),
        ({"a": 1}, 'metadata "a": expected a str, got int'),
        ({1: "a"}, "metadata: expected a str as key, got int"),
        ("a", "metadata: expected a mapping or pairs, got str"),
        (5, "metadata: expected a mapping or pairs, got int"),
        (["ab"], "metadata: expected a mapping or pairs, got str in it"),
        ([("a", "b", "c")], "metadata: expected a mapping or pairs, got tuple in it"),
    ],
)
def test_rejects_other_types_as_metadata(metadata, message):
    """The error has what was expected and what came."""
    with pytest.raises(TypeError, match=message):
        checked_metadata(metadata)
