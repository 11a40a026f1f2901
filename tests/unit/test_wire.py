"""What is written by hand is what protobuf writes."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb

#: Tags of fields of `inferd.v1.Tensor`.
_NAME, _RAW, _UINTS = 0x0A, 0x22, 0x3A


@given(value=st.integers(0, 2**64 - 1) | st.integers(0, 2**14 + 1))
@example(0)
@example(2**7)
@example(2**12 - 1)
@example(2**12)
@example(2**64 - 1)
def test_numbers_are_written_as_protobuf_writes_them(value: int) -> None:
    """In as few bytes as hold them, the short ones that are kept and all others."""
    assert wire.field(_UINTS, wire.varint(value)) == pb.Tensor(uints=[value]).SerializeToString()


@given(content=st.binary(min_size=1, max_size=300))
def test_bytes_are_written_as_protobuf_writes_them(content: bytes) -> None:
    """A tag, the length, and the content."""
    assert wire.field(_RAW, content) == pb.Tensor(raw=content).SerializeToString()


@given(text=st.text(min_size=1, max_size=300))
def test_text_is_written_as_protobuf_writes_it(text: str) -> None:
    """Its length is that of its bytes."""
    assert wire.field(_NAME, text.encode()) == pb.Tensor(name=text).SerializeToString()


@pytest.mark.parametrize("size", [127, 128, 4095, 4096, 16383, 16384, 2**21 - 1, 2**21])
def test_lengths_of_every_size(size: int) -> None:
    """Where the length takes a byte more, and where it is no longer one that is kept."""
    content = bytes(size)
    written = pb.Tensor(raw=content).SerializeToString()
    assert wire.field(_RAW, content) == written
    assert wire.prefix(_RAW, size) == written[:-size]


def test_an_empty_content_is_a_field_all_the_same() -> None:
    """Protobuf leaves such a field out, and reads it as what it is without it."""
    assert pb.Tensor.FromString(wire.field(_RAW, b"")) == pb.Tensor()
