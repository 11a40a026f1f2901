"""Metadata is checked before the core sees it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc.core import checked_metadata, encoded_metadata


@pytest.mark.parametrize("empty", [(), [], None])
def test_empty_metadata_is_none(empty):
    """The core takes None for it."""
    assert checked_metadata(empty) is None


def test_keeps_legal_metadata():
    """Text, binary and empty values, and a key twice."""
    metadata = [("a", "1"), ("a", ""), ("x-0_.y", "b c~"), ("trace-bin", b"\x00\xff"), ("t", b"bytes")]
    as_text = [("a", "1"), ("a", ""), ("x-0_.y", "b c~"), ("trace-bin", b"\x00\xff"), ("t", "bytes")]
    assert checked_metadata(metadata) == tuple(as_text)


@pytest.mark.parametrize("key", ["", "Upper", "with space", "colon:", ":path", "ünder", "tab\t", "new\n", b"bytes", 7])
def test_names_illegal_keys(key):
    """The error names the key."""
    with pytest.raises(ValueError, match="expected lower-case") as error:
        checked_metadata([("fine", "x"), (key, "x")])
    assert repr(key) in str(error.value)


@pytest.mark.parametrize("value", ["tab\t", "line\nline", "ümlaut", "\x7f", b"\xff", 7, None])
def test_names_the_key_of_illegal_text(value):
    """Text is printable ASCII."""
    with pytest.raises(ValueError, match="metadata 'key': expected printable ASCII"):
        checked_metadata([("key", value)])


@pytest.mark.parametrize("value", ["text", None, 7])
def test_binary_keys_require_bytes(value):
    """The suffix -bin declares bytes."""
    with pytest.raises(ValueError, match="metadata 'key-bin': expected bytes"):
        checked_metadata([("key-bin", value)])


@pytest.mark.parametrize("key", ["grpc-status", "grpc-message", "content-type", "te", "grpc-timeout"])
def test_rejects_reserved_keys(key):
    """The protocol sets them."""
    with pytest.raises(ValueError, match="reserved"):
        checked_metadata([(key, "0")])


@given(st.lists(st.tuples(st.text(max_size=8), st.one_of(st.text(max_size=8), st.binary(max_size=8)))))
def test_checked_metadata_is_legal(metadata):
    """Any input raises ValueError or fits the wire format."""
    try:
        passed = checked_metadata(metadata) or ()
    except ValueError:
        return
    for key, value in passed:
        assert key
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-.")
        assert isinstance(value, bytes) if key.endswith("-bin") else set(value) <= {chr(c) for c in range(32, 127)}


def test_encodes_metadata_of_many_calls():
    """It is checked then, and not for each call."""
    encoded = encoded_metadata([("a", "1"), ("b", b"2"), ("c-bin", b"\xff")])
    assert encoded == ((b"a", b"1"), (b"b", b"2"), (b"c-bin", b"\xff"))
    with pytest.raises(ValueError, match="printable ASCII"):
        encoded_metadata([("a", "\n")])
