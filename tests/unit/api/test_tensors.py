"""Tensors as raw bytes and as typed lists, to and from arrays."""

import math

import numpy as np
import pytest

from inferd.api import tensors
from inferd.dtypes import ALL, BY_NAME, BYTES
from inferd.errors import InvalidInputError


@pytest.mark.parametrize("datatype", [t for t in ALL if t is not BYTES], ids=lambda t: t.name)
def test_numbers_round_trip(datatype):
    """Every fixed-size type."""
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(datatype.numpy)
    again = tensors.from_bytes("x", datatype, array.shape, tensors.to_bytes(array), 9)
    assert again.dtype == datatype.numpy
    assert np.array_equal(again, array)


def test_byte_strings_round_trip():
    """BYTES elements keep empty strings, zero bytes and invalid UTF-8."""
    array = tensors.object_array([b"", b"a\0", b"\xff\xfe", "ü".encode()]).reshape(2, 2)
    again = tensors.from_bytes("x", BYTES, (2, 2), tensors.to_bytes(array), 4)
    assert again.tolist() == array.tolist()


def test_numbers_are_view_of_message():
    """Decoding copies nothing, and the view is read-only."""
    raw = np.arange(4, dtype=np.float32).tobytes()
    array = tensors.from_bytes("x", BY_NAME["FP32"], (4,), raw, 9)
    assert array.base is not None
    assert not array.flags.writeable


def test_encodes_any_layout_row_major():
    """Splits of a batch along another axis than the first are strided."""
    array = np.arange(6, dtype=np.int32).reshape(2, 3).T
    assert tensors.to_bytes(array) == np.ascontiguousarray(array).tobytes()


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "said"),
    [
        ("FP32", (2,), b"\0" * 7, r'input "x": expected 8 bytes for shape \[2\] of FP32, got 7'),
        ("FP32", (-1, 2), b"\0" * 8, r'input "x": expected dimensions of 0 or more, got shape \[-1, 2\]'),
        ("FP32", (2**62, 2**62), b"", r'input "x": expected \d+ bytes for shape'),
        ("FP32", (2**62, 2**62, 0), b"", r'input "x": shape .* is too large'),
        ("BOOL", (2,), b"\1\2", r'input "x": expected each BOOL as a byte of 0 or 1, got another as element 1'),
        ("BYTES", (1,), b"\1\0", r'input "x": expected the 4-byte length of element 0, got 2 bytes'),
        ("BYTES", (1,), b"\5\0\0\0abc", r'input "x": expected 5 bytes for element 0, got 3'),
        ("BYTES", (2,), b"\1\0\0\0a", r'input "x": expected 2 elements for shape \[2\], got 1'),
    ],
)
def test_names_input_that_does_not_fit(datatype, shape, raw, said):
    """With what was expected and what came."""
    with pytest.raises(InvalidInputError, match=said):
        tensors.from_bytes("x", BY_NAME[datatype], shape, raw, 9)


@pytest.mark.parametrize(
    ("name", "value"),
    [("INT8", 128), ("INT8", -129), ("UINT8", -1), ("UINT16", 2**16), ("UINT64", -1), ("INT64", 2**63)],
)
def test_rejects_integers_out_of_range(name, value):
    """Values are neither wrapped nor quoted, because error texts are logged."""
    said = rf'^input "x": expected {name} values from -?\d+ to \d+, got another as element 1$'
    with pytest.raises(InvalidInputError, match=said):
        tensors.from_integers("x", BY_NAME[name], [0, value])


@pytest.mark.parametrize("name", ["INT8", "INT64", "UINT64", "FP16", "BF16", "FP32", "FP64"])
def test_accepts_integers_for_any_number(name):
    """Users write 0 for 0.0."""
    array = tensors.from_integers("x", BY_NAME[name], [0, 1, 2])
    assert array.dtype == BY_NAME[name].numpy
    assert array.astype(float).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(("name", "value"), [("FP16", 70000.0), ("FP32", 1e39), ("BF16", 1e39)])
def test_rejects_floats_out_of_range(name, value):
    """A finite number does not become infinite silently."""
    said = f'^input "x": expected values within the range of {name}, got one beyond as element 1$'
    with pytest.raises(InvalidInputError, match=said):
        tensors.from_floats("x", BY_NAME[name], [0, value])


def test_accepts_infinity_and_nan():
    """Explicit infinities are kept."""
    array = tensors.from_floats("x", BY_NAME["FP16"], [math.inf, -math.inf, math.nan])
    assert np.isinf(array[:2]).all()
    assert np.isnan(array[2])


@pytest.mark.parametrize(
    ("convert", "name", "values", "said"),
    [
        (tensors.from_bools, "FP32", [True], "expected values of FP32, got a list of booleans"),
        (tensors.from_floats, "INT64", [1.5], "expected values of INT64, got a list of floating-point numbers"),
        (tensors.from_integers, "BOOL", [1], "expected values of BOOL, got a list of integers"),
    ],
)
def test_rejects_wrong_list(convert, name, values, said):
    """With the kind of list that came."""
    with pytest.raises(InvalidInputError, match=said):
        convert("x", BY_NAME[name], values)


@pytest.mark.parametrize(
    ("array", "field", "values"),
    [
        (np.array([[True, False]]), "bools", [True, False]),
        (np.array([-1, 2], np.int8), "ints", [-1, 2]),
        (np.array([2**64 - 1], np.uint64), "uints", [2**64 - 1]),
        (np.array([0.1, np.inf], np.float32), "floats", [0.1, math.inf]),
        (np.array([0.1], np.float16), "floats", [0.1]),
        (np.array([b"a", "ü".encode()], object), "strings", ["a", "ü"]),
        (np.array([b"a", b"\xff"], object), "bytes_values", [b"a", b"\xff"]),
    ],
)
def test_elements_go_to_list_of_their_kind(array, field, values):
    """Floats have the shortest digits of their type."""
    name, parts = tensors.to_lists(array)
    assert (name, [*parts]) == (field, [values])


@pytest.mark.parametrize("name", ["FP16", "BF16", "FP32", "FP64"])
def test_short_floats_round_trip(name):
    """Short for readers, exact for programs."""
    dtype = BY_NAME[name].numpy
    array = np.random.default_rng(0).standard_normal(200).astype(dtype)
    (values,) = tensors.to_lists(array)[1]
    assert np.array_equal(tensors.from_floats("x", BY_NAME[name], values), array)


def test_long_lists_come_in_parts():
    """Each is converted in one step."""
    array = np.arange(120_001, dtype=np.float32)
    parts = [*tensors.to_lists(array)[1]]
    assert max(map(len, parts)) <= 4_000
    assert [element for part in parts for element in part] == array.tolist()


class SlicedList(list):
    """A list that records the lengths of its slices."""

    def __init__(self, values):
        super().__init__(values)
        self.lengths = []

    def __getitem__(self, key):
        part = super().__getitem__(key)
        if isinstance(key, slice):
            self.lengths.append(len(part))
        return part


@pytest.fixture
def turns(monkeypatch):
    """Records how often other threads may run."""
    turns = []
    monkeypatch.setattr(tensors.POLL_THREAD, "give_way", lambda *, may_sleep: turns.append(may_sleep))
    return turns


@pytest.mark.parametrize("elements", [0, 1, 4_000, 4_001, 10_000])
def test_other_threads_run_between_steps(turns, elements):
    """In both directions; short ones are one step."""
    breaks = max(elements - 1, 0) // 4_000
    strings = [b"abc"] * elements
    flat = tensors.object_array(strings)
    doing = {
        "numbers": lambda: tensors.from_floats("x", BY_NAME["FP32"], [0.5] * elements),
        "texts": lambda: tensors.from_strings("x", BYTES, ["a"] * elements),
        "raw": lambda: tensors.from_bytes("x", BYTES, [elements], tensors.to_bytes(flat), 10_000),
        "lists": lambda: [*tensors.to_lists(flat)[1]],
    }
    seen = {}
    for name, do in doing.items():
        do()
        seen[name] = len(turns)
        turns.clear()
    assert seen == dict.fromkeys(doing, breaks)


@pytest.mark.parametrize(
    ("name", "convert"),
    [("FP32", tensors.from_floats), ("INT64", tensors.from_integers), ("BOOL", tensors.from_bools)],
)
def test_long_lists_are_converted_in_parts(name, convert):
    """No step takes long, as it holds the interpreter lock."""
    values = SlicedList([BY_NAME[name].numpy.type(number % 2).item() for number in range(10_001)])
    assert convert("x", BY_NAME[name], values).tolist() == values
    assert values.lengths == [4_000, 4_000, 2_001]
