"""Conversion between arrays and tensors."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd import dtypes
from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import Internal, InvalidInput
from inferd.client.codec import decode
from tests.unit.client.fake_service import encode

_NUMERIC = [dtype for dtype in dtypes.ALL if dtype is not dtypes.BYTES]
_SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@given(
    st.sampled_from([d for d in _NUMERIC if d.name != "BF16"]).flatmap(lambda d: hnp.arrays(d.numpy, _SHAPES)),
    st.booleans(),
)
def test_numbers_survive_the_round_trip(array, big_endian):
    """Number arrays keep values, type and shape, whatever their byte order and memory layout."""
    sent = array.astype(array.dtype.newbyteorder(">")).T if big_endian else array
    received = decode(encode("x", sent))
    assert received.dtype == array.dtype
    assert received.shape == sent.shape
    assert received.tobytes() == np.ascontiguousarray(sent).astype(array.dtype).tobytes()


@given(hnp.arrays(object, _SHAPES, elements=st.binary(max_size=8)))
def test_byte_strings_survive_the_round_trip(array):
    """Byte strings of any length, including trailing zero bytes."""
    received = decode(encode("x", array))
    assert received.dtype == object
    assert received.shape == array.shape
    assert received.ravel().tolist() == array.ravel().tolist()


@pytest.mark.parametrize("datatype", dtypes.ALL, ids=lambda d: d.name)
def test_every_type_has_its_number(datatype):
    """Element types have the numbers of the contract."""
    value = b"a" if datatype is dtypes.BYTES else 1
    tensor = encode("x", np.array([value], dtype=datatype.numpy))
    assert pb.DataType.Name(tensor.datatype) == f"DATA_TYPE_{datatype.name}"


def test_bfloat16_is_two_bytes():
    """It is sent as the high two bytes of the float, little-endian."""
    tensor = encode("x", np.array([1.0, -2.0], dtype=ml_dtypes.bfloat16))
    assert tensor.raw == b"\x80\x3f\x00\xc0"
    assert decode(tensor).astype(np.float32).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", "zoë"]),
        np.array(["a", "zoë"], dtype=object),
        np.array(["a", "zoë"], dtype=np.dtypes.StringDType()),
        np.array([b"a", "zoë".encode()]),
        ["a", "zoë"],
    ],
    ids=["U", "object", "StringDType", "S", "list"],
)
def test_text_is_utf8(value):
    """Text of every numpy kind is sent as BYTES in UTF-8."""
    tensor = encode("x", value)
    assert tensor.datatype == pb.DATA_TYPE_BYTES
    assert decode(tensor).tolist() == [b"a", "zoë".encode()]


def test_scalars_have_no_dimensions():
    """A number is a tensor of rank 0."""
    tensor = encode("x", 7)
    assert list(tensor.shape) == []
    assert decode(tensor) == np.int64(7)


def test_views_are_copied_in_their_own_order():
    """A strided view is sent in its logical order."""
    assert decode(encode("x", np.arange(12).reshape(3, 4)[::2, ::-1])).tolist() == [[3, 2, 1, 0], [11, 10, 9, 8]]


def test_alias_dtypes_are_known():
    """C's `long long`, which numpy distinguishes from `long`, is INT64."""
    assert encode("x", np.array([1], dtype=np.longlong)).datatype == pb.DATA_TYPE_INT64


def test_decoded_numbers_are_read_only_views():
    """Numbers are not copied out of the message."""
    array = decode(encode("x", np.zeros(3)))
    assert array.base is not None
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros(2, dtype=complex), "dtype complex128 is not supported; expected bool, uint8"),
        (np.zeros(2, dtype="datetime64[s]"), "dtype datetime64[s] is not supported"),
        (np.zeros(2, dtype="f4,i4"), "is not supported"),
        (np.array(["a", None], dtype=object), "expected str or bytes, got NoneType at 1"),
        ([[1], [2, 3]], "expected an array, got list"),
        (["\ud800"], "lone surrogate at 0"),
    ],
    ids=["complex", "time", "record", "none", "ragged", "surrogate"],
)
def test_rejects_unsupported_types(value, text):
    """Before anything is sent, with the input's name."""
    with pytest.raises(InvalidInput) as caught:
        encode("X", value)
    assert caught.value.message.startswith('input "X": ')
    assert text in caught.value.message


@pytest.mark.parametrize(
    "tensor",
    [
        pb.Tensor(name="y", datatype=pb.DATA_TYPE_FP32, shape=[2], raw=b"1234"),
        pb.Tensor(name="y", datatype=pb.DATA_TYPE_FP32, shape=[1], raw=b"123"),
        pb.Tensor(name="y", datatype=pb.DATA_TYPE_BYTES, shape=[1], raw=b"\x02\0\0\0a"),
        pb.Tensor(name="y", datatype=pb.DATA_TYPE_BYTES, shape=[1], raw=b"\x02\0"),
        pb.Tensor(name="y", datatype=pb.DATA_TYPE_BYTES, shape=[2], raw=b"\x01\0\0\0a"),
    ],
    ids=["too few", "not whole", "short element", "short length", "count"],
)
def test_reports_invalid_outputs(tensor):
    """Bytes that do not match the declared shape, with the output's name."""
    with pytest.raises(Internal, match=r'output "y": \d+ bytes do not hold'):
        decode(tensor)


def test_reports_unknown_types():
    """The error asks for a newer client."""
    with pytest.raises(Internal, match="element type 99"):
        decode(pb.Tensor(name="y", datatype=99))
