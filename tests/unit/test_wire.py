"""Hand-written encoding equals protobuf's."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb

_NAME, _RAW, _UINTS = (wire.tag(pb.Tensor, name) for name in ("name", "raw", "uints"))


@given(value=st.integers(0, 2**64 - 1) | st.integers(0, 2**14 + 1))
@example(0)
@example(2**7)
@example(2**12 - 1)
@example(2**12)
@example(2**64 - 1)
def test_varints_equal_protobuf(value: int) -> None:
    """The cached short ones and all others."""
    assert wire.field(_UINTS, wire.varint(value)) == pb.Tensor(uints=[value]).SerializeToString()


@given(content=st.binary(min_size=1, max_size=300))
def test_bytes_fields_equal_protobuf(content: bytes) -> None:
    """A tag, the length, and the content."""
    assert wire.field(_RAW, content) == pb.Tensor(raw=content).SerializeToString()


@given(text=st.text(min_size=1, max_size=300))
def test_text_fields_equal_protobuf(text: str) -> None:
    """The length is in bytes."""
    assert wire.field(_NAME, text.encode()) == pb.Tensor(name=text).SerializeToString()


@pytest.mark.parametrize("size", [127, 128, 4095, 4096, 16383, 16384, 2**21 - 1, 2**21])
def test_lengths_of_every_size(size: int) -> None:
    """Around the lengths that need a byte more, and the largest cached one."""
    content = bytes(size)
    written = pb.Tensor(raw=content).SerializeToString()
    assert wire.field(_RAW, content) == written
    assert wire.prefix(_RAW, size) == written[:-size]


def test_empty_content_is_encoded() -> None:
    """Protobuf omits such a field, which means the same."""
    assert pb.Tensor.FromString(wire.field(_RAW, b"")) == pb.Tensor()


def test_tags_follow_from_descriptors():
    """Of text, bytes, packed lists, messages and integers; or from numbers without a descriptor."""
    assert (wire.length_tag(1), wire.length_tag(4), wire.length_tag(7)) == (_NAME, _RAW, _UINTS)
    assert wire.tag(pb.InferRequest, "inputs") == wire.length_tag(4)
    assert wire.tag(pb.InferRequest, "priority") == wire.integer_tag(6)


@given(value=st.integers(0, 2**64 - 1), behind=st.binary(max_size=3))
def test_reads_varints(value: int, behind: bytes) -> None:
    """Up to their end."""
    written = wire.varint(value)
    assert wire.read_varint(b"x" + written + behind, 1) == (value, 1 + len(written))


@given(contents=st.lists(st.binary(max_size=300)), others=st.lists(st.integers(0, 2**40)))
def test_reads_contents_among_other_fields(contents: list[bytes], others: list[int]) -> None:
    """In order, with a None for each other field."""
    message = b"".join(wire.integer(0x50, value) for value in others)
    message += b"".join(wire.field(_RAW, content) for content in contents) + wire.double(0x59, 1.5)
    assert list(wire.contents(message, _RAW)) == [None] * len(others) + contents + [None]


@pytest.mark.parametrize(
    "message", [b"\x22", b"\x22\x05abc", b"\x08", b"\x09abc", b"\x0b", b"\x0f", b"\x08" + b"\xff" * 10]
)
def test_rejects_truncated_and_malformed_fields(message: bytes) -> None:
    """Whatever is missing."""
    with pytest.raises(wire.MalformedError):
        list(wire.contents(message, _RAW))
