"""Raw tensor bytes, both ways."""

import numpy as np
import pytest

from inferd.api import tensor_bytes
from inferd.dtypes import ALL, BY_NAME, BYTES
from inferd.errors import InvalidInputError


@pytest.mark.parametrize("datatype", [t for t in ALL if t is not BYTES], ids=lambda t: t.name)
def test_numbers_survive_the_round_trip(datatype):
    """Every fixed-size type comes back as it was."""
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(datatype.numpy)
    again = tensor_bytes.from_bytes("x", datatype, array.shape, tensor_bytes.to_bytes(array), 9)
    assert again.dtype == datatype.numpy
    assert np.array_equal(again, array)


def test_byte_strings_survive_the_round_trip():
    """BYTES elements keep empty strings, zero bytes and bytes that are no text."""
    array = tensor_bytes.object_array([b"", b"a\0", b"\xff\xfe", "ü".encode()]).reshape(2, 2)
    again = tensor_bytes.from_bytes("x", BYTES, (2, 2), tensor_bytes.to_bytes(array), 4)
    assert again.tolist() == array.tolist()


def test_numbers_are_a_view_of_the_message():
    """Decoding copies nothing and cannot be used to change the message."""
    raw = np.arange(4, dtype=np.float32).tobytes()
    array = tensor_bytes.from_bytes("x", BY_NAME["FP32"], (4,), raw, 9)
    assert array.base is not None
    assert not array.flags.writeable


def test_any_memory_layout_is_encoded_row_major():
    """Splits of a batch along another axis than the first are strided."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert tensor_bytes.to_bytes(array) == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "said"),
    [
        ("FP32", (2,), b"\0" * 7, r'input "x": expected 8 bytes for shape \[2\] of FP32, got 7'),
        ("FP32", (-1, 2), b"\0" * 8, r'input "x": expected dimensions of 0 or more, got shape \[-1, 2\]'),
        ("FP32", (2**62, 2**62), b"", r'input "x": expected \d+ bytes for shape'),
        ("FP32", (2**62, 2**62, 0), b"", r'input "x": shape .* is too large'),
        ("BOOL", (2,), b"\1\2", r'input "x": expected each BOOL as a byte of 0 or 1'),
        ("BYTES", (1,), b"\1\0", r'input "x": expected the 4-byte length of element 0, got 2 bytes'),
        ("BYTES", (1,), b"\5\0\0\0abc", r'input "x": expected 5 bytes for element 0, got 3'),
        ("BYTES", (2,), b"\1\0\0\0a", r'input "x": expected 2 elements for shape \[2\], got 1'),
    ],
)
def test_what_does_not_fit_is_named(datatype, shape, raw, said):
    """The text names the input, what was expected and what came."""
    with pytest.raises(InvalidInputError, match=said):
        tensor_bytes.from_bytes("x", BY_NAME[datatype], shape, raw, 9)
