"""Conversion of JSON values and stored arrays to the arrays that a model takes."""

import ml_dtypes
import numpy as np
import pytest

from inferd.dtypes import BY_NAME
from inferd.recorded_requests import RecordedRequestsError, from_json, parse_json, read
from tests.unit.recorded_requests.requests import input_form, write_npz


@pytest.mark.parametrize(
    ("value", "axis", "shape"),
    [([1, 2, 3], 0, (1, 3)), ([1, 2, 3], 1, (3, 1)), ([[1, 2, 3]], 0, (1, 3)), ([[1], [2]], 1, (2, 1))],
)
def test_single_row_gets_the_batch_dimension(value, axis, shape):
    """A value that lacks only the batch dimension."""
    assert from_json(input_form("INT32", "batch", None, batch_axis=axis), value).shape == shape


@pytest.mark.parametrize(
    ("shape", "axis", "value", "message"),
    [
        (("batch", 3), None, [1, 2, 3], "expected shape [batch, 3], got [3]"),
        (("batch", 3), 0, 1, "expected shape [batch, 3], got []"),
        (("batch", 3), 0, [[[1]]], "expected shape [batch, 3], got [1, 1, 1]"),
        (("batch", 3), 0, [[1, 2]], "expected shape [batch, 3], got [1, 2]"),
        (("batch", 3), 0, [1, 2], "expected shape [batch, 3], got [1, 2]"),
        ((None, 1), None, [[1, 2]], "expected shape [?, 1], got [1, 2]"),
        ((), None, [1], "expected shape [], got [1]"),
    ],
)
def test_rejects_other_shapes(shape, axis, value, message):
    """Without a known batch axis, all dimensions are required; fixed ones must match."""
    with pytest.raises(ValueError, match="X") as caught:
        from_json(input_form("FP32", *shape, batch_axis=axis), value)
    assert str(caught.value) == f'input "X": {message}'


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("INT32", [1, 2.5], "expected INT32, got 2.5"),
        ("INT32", [True], "expected INT32, got true"),
        ("FP32", ["1"], 'expected FP32, got "1"'),
        ("FP32", [None], "expected FP32, got null"),
        ("FP32", [{"a": 1}], 'expected FP32, got {"a": 1}'),
        ("BOOL", [1], "expected BOOL, got 1"),
        ("BYTES", [1], "expected BYTES, got 1"),
        ("BYTES", ["\ud800"], "expected UTF-8 text, got a lone surrogate in element 0"),
        ("UINT8", [256], "expected UINT8, got a number beyond its range: 256"),
        ("UINT8", [-1], "expected UINT8, got a number beyond its range: -1"),
        ("INT64", [2**63], "expected INT64, got a number beyond its range: 9223372036854775808"),
        ("FP16", [1e6], "expected FP16, got a number beyond its range: 1000000.0"),
        ("BF16", [1, 1e39], "expected BF16, got a number beyond its range: 1e+39"),
        ("FP64", [1, 10**400], f"expected FP64, got a number beyond its range: 1{'0' * 79}…"),
        ("FP32", [10**5000], "expected FP32, got a number beyond its range: a int"),
        ("FP32", [[1], [2, 3]], "expected lists of one shape beside each other, got [1] and [2]"),
        ("FP32", [[1], 2], "expected lists of one shape beside each other, got [] and [1]"),
        ("FP32", ["a" * 1000], f'expected FP32, got "{"a" * 79}…'),
    ],
)
def test_rejects_invalid_values(datatype, value, message):
    """Elements of another type or out of range, and ragged lists; the error names the input."""
    with pytest.raises(ValueError, match="X") as caught:
        from_json(input_form(datatype, "batch"), value)
    assert str(caught.value) == f'input "X": {message}'


def test_rejects_recursive_values():
    """Which YAML aliases can create."""
    endless = []
    endless.append(endless)
    circular = {}
    circular["a"] = circular
    for value in (endless, [circular]):
        with pytest.raises(ValueError, match='input "X": expected'):
            from_json(input_form("FP32", "batch"), value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1,", "Expecting value"),
        ('{"a": 1, "a": 2}', 'duplicate key "a"'),
        ("1e999", "1e999 is out of range of FP64"),
        ("9" * 5000, "Exceeds the limit"),
        ("[" * 100_000, "values are nested too deeply"),
    ],
)
def test_rejects_invalid_json(text, message):
    """The message has the reason."""
    with pytest.raises(ValueError, match=r"^invalid JSON: ") as caught:
        parse_json(text)
    assert message in str(caught.value)


def test_json_may_have_non_finite_numbers():
    """A request may be recorded because of them."""
    assert (
        str(from_json(input_form("FP32", 3), parse_json("[NaN, Infinity, -Infinity]")).tolist()) == "[nan, inf, -inf]"
    )


def test_zeros_of_json_keep_their_signs():
    """The integer -0 too, as Go writes -0.0; of integers it is 0."""
    value = parse_json("[-0, 0, -0.0]")
    assert np.signbit(from_json(input_form("BF16", 3), value).astype(float)).tolist() == [True, False, True]
    assert from_json(input_form("INT8", 2), parse_json("[-0, 1]")).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("FP32", np.array([1.0, 2.5], np.float64)),
        ("FP32", np.array([1.0, 2.5], ">f4")),
        ("FP16", np.array([1.0, 2.5], np.longdouble)),
        ("FP64", np.array([1.0, 2.5], np.float16)),
        ("BF16", np.array([1.0, 2.5], np.float32)),
        ("BF16", np.array([1.0, 2.5], ml_dtypes.bfloat16)),
        ("FP32", np.array([1, 2])),
        ("UINT8", np.array([0, 255])),
        ("INT64", np.array([1, 2], np.uint64)),
        ("INT64", np.array([1, 2], ">i4")),
    ],
)
def test_converts_numbers_of_the_same_kind(tmp_path, datatype, array):
    """If only precision is lost; to native byte order."""
    (request,) = read(write_npz(tmp_path, X=array), [input_form(datatype, "n")])
    assert request["X"].dtype == BY_NAME[datatype].numpy
    assert request["X"].dtype.isnative
    assert request["X"].astype(np.float64).tolist() == array.astype(np.float64).tolist()


def test_accepts_any_memory_layout(tmp_path):
    """The result is C-contiguous, and a single row gets the batch dimension."""
    (request,) = read(write_npz(tmp_path, X=np.arange(6, dtype=np.int32).reshape(2, 3).T), [input_form("INT32", 3, 2)])
    assert request["X"].flags.c_contiguous
    assert request["X"].tolist() == [[0, 3], [1, 4], [2, 5]]
    (request,) = read(write_npz(tmp_path, X=np.arange(2, dtype=np.int32)), [input_form("INT32", "n", 2, batch_axis=0)])
    assert request["X"].tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("datatype", "array", "message"),
    [
        ("INT32", np.array([1.0]), "expected INT32, got dtype float64"),
        ("FP32", np.array([True]), "expected FP32, got dtype bool"),
        ("BOOL", np.array([1]), "expected BOOL, got dtype int64"),
        ("FP32", np.array(["1"]), "expected FP32, got dtype <U1"),
        ("BYTES", np.array([1]), "expected BYTES, got dtype int64"),
        ("FP32", np.array([1j]), "expected FP32, got dtype complex128"),
        ("INT64", np.array(["2020-01-01"], "M8[D]"), "expected INT64, got dtype datetime64[D]"),
        ("FP16", np.array([1.0, 7e4]), "expected FP16, got a number beyond its range: 70000.0"),
        ("FP16", np.array([70_000]), "expected FP16, got a number beyond its range: 70000"),
        ("UINT8", np.array([1, -1]), "expected UINT8, got a number beyond its range: -1"),
        ("INT64", np.array([2**63], np.uint64), "expected INT64, got a number beyond its range: 9223372036854775808"),
        ("BYTES", np.array([b"a", b"\xff"]), "expected UTF-8 text, got other bytes in element 1"),
        ("BYTES", np.array([2**32 - 1], np.uint32).view("U1"), "expected text, got numbers that are no characters"),
        ("BYTES", np.array([0xD800], np.uint32).view("U1"), "expected UTF-8 text, got a lone surrogate in element 0"),
        ("FP32", np.zeros((1, 1), np.float32), "expected shape [n], got [1, 1]"),
    ],
)
def test_rejects_arrays_of_other_types(tmp_path, datatype, array, message):
    """Numbers keep their kind and value; strings are not converted."""
    with pytest.raises(RecordedRequestsError) as caught:
        read(write_npz(tmp_path, X=array), [input_form(datatype, "n")])
    assert str(caught.value) == f'examples.npz: request 0: input "X": {message}'
