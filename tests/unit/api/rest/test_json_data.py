"""The data of inputs in JSON: short and long, flat and nested."""

import json
import math

import numpy as np
import pytest

from inferd.api.rest import json_data
from inferd.dtypes import BY_NAME
from inferd.errors import InvalidInputError
from tests.unit.api.rest.bench import tensor_of

#: More than is parsed in one step.
LONG = 30_000


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT64", [-(2**63), 2**63 - 1]),
        ("FP16", [0.5, 65504]),
        ("BF16", [1, -0.0]),
        ("FP32", [5e-45, 3.4e38]),
        ("FP64", [5e-324, -0.0]),
        ("BYTES", ["", "\0é😀"]),
    ],
)
@pytest.mark.parametrize("repeats", [1, LONG], ids=["short", "long"])
def test_every_datatype(datatype, data, repeats):
    """The extremes of each type, exactly; those of long arrays too."""
    elements = [value.encode() for value in data] if datatype == "BYTES" else data
    expected = np.array(elements, BY_NAME[datatype].numpy)
    array = tensor_of(data * repeats, datatype, [2 * repeats])
    assert array.dtype == expected.dtype
    assert array.tolist() == expected.tolist() * repeats
    if datatype != "BYTES":
        assert array.tobytes() == expected.tobytes() * repeats


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP32", "FP64"])
@pytest.mark.parametrize("repeats", [1, LONG], ids=["short", "long"])
@pytest.mark.parametrize("nested", [False, True])
def test_zeros_keep_their_signs(datatype, repeats, nested):
    """The integer -0 too, as Go writes -0.0; exponents of -0, and literals beside it, are what they are."""
    row = '-0, 0, -0.0, 1e-0, "NaN", -0 , NaN'
    expected = np.array([-0.0, 0, -0.0, 1, np.nan, -0.0, np.nan] * repeats, BY_NAME[datatype].numpy)
    shape = [repeats, 7] if nested else [7 * repeats]
    text = ",".join([f"[{row}]" if nested else row] * repeats)
    assert tensor_of(f"[{text}]", datatype, shape).tobytes() == expected.tobytes()


def test_minus_zero_elsewhere():
    """It is a scalar, an integer of integers, and text within strings."""
    assert np.signbit(tensor_of("-0", "FP32", []))
    assert tensor_of("[-0, 1]", "INT32", [2]).tolist() == [0, 1]
    assert tensor_of('["-0", "\\\\\\"-0 "]', "BYTES", [2]).tolist() == [b"-0", b'\\"-0 ']


@pytest.mark.parametrize("repeats", [1, LONG], ids=["short", "long"])
def test_literals_of_other_encoders(repeats):
    """Python writes NaN and the infinities so, and Triton's clients with it; other numbers are as without them."""
    numbers = [np.nan, 1, -np.inf, 0.1, np.inf, -0.0, 2**64 - 1, 2**70]
    expected = np.array([float(number) for number in numbers] * repeats)
    assert tensor_of(numbers * repeats, "FP64", [8 * repeats]).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("datatype", "said"), [("INT32", "integers"), ("BYTES", "strings"), ("BOOL", "booleans")])
def test_literals_are_no_other_elements(datatype, said):
    """They are numbers only."""
    with pytest.raises(InvalidInputError, match=f"expected {said}, got a number"):
        tensor_of("[NaN]", datatype, [1])


def test_no_numbers_are_strings():
    """As answers have them; in any mix with numbers."""
    array = tensor_of(["NaN", 1, "-Infinity", "Infinity"], "FP32", [4])
    np.testing.assert_array_equal(array, np.array([np.nan, 1, -np.inf, np.inf], np.float32))


@pytest.mark.parametrize("shape", [[2, 3], [6], [1, 2, 1, 3], [2, 0, 3], [0], [3, 1, 2]])
@pytest.mark.parametrize("nested", [False, True])
def test_flat_and_nested(shape, nested):
    """Both are row-major; empty ones have all their dimensions."""
    expected = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    array = tensor_of(expected.tolist() if nested else expected.ravel().tolist(), "INT32", shape)
    assert array.shape == expected.shape
    assert array.tolist() == expected.tolist()


@pytest.mark.parametrize("data", [5, [5]])
def test_scalars(data):
    """With brackets as a flat array, or without as a nested one of no dimension."""
    assert tensor_of(data, "INT32", []).tolist() == 5


@pytest.mark.parametrize("shape", [[LONG, 2], [1, LONG * 2], [LONG // 10, 4, 5], [LONG, 1, 2, 1], [2, 1, LONG]])
@pytest.mark.parametrize("indent", [None, 1])
def test_long_nested_arrays(shape, indent):
    """Brackets fall on the ends of pieces, wherever commas are."""
    expected = np.arange(LONG * 2, dtype=np.float32).reshape(shape)
    array = tensor_of(json.dumps(expected.tolist(), indent=indent), "FP32", shape)
    assert array.tobytes() == expected.tobytes()
    assert array.shape == expected.shape


def test_long_texts():
    """Commas, brackets, quotes and backslashes within strings end nothing, wherever pieces end."""
    parts = ["a,b", "]", "[[", '"', "\\", '\\"', "\\\\", ",", "é" * 50, ""]
    texts = [parts[number * 7 % len(parts)] + parts[number % len(parts)] for number in range(LONG)]
    assert tensor_of(texts, "BYTES", [LONG]).tolist() == [text.encode() for text in texts]
    nested = [[text, text] for text in texts]
    assert tensor_of(nested, "BYTES", [LONG, 2]).tolist() == [[text.encode()] * 2 for text in texts]


def test_long_elements():
    """A string of some windows is one element; one that takes long to parse is refused."""
    texts = ["a" * 200_000, "b", "\\" * 100_000]
    assert tensor_of(texts, "BYTES", [3]).tolist() == [text.encode() for text in texts]
    with pytest.raises(InvalidInputError, match="shorter elements in JSON; send the tensor as binary data"):
        tensor_of(["a" * 3_000_000], "BYTES", [1])


NUMBERS = [0.5] * (2 * LONG)


@pytest.mark.parametrize(
    ("datatype", "data", "said"),
    [
        ("FP32", [1], "expected 2 elements for shape [2], got 1"),
        ("FP32", [1, 2, 3], "expected 2 elements for shape [2], got 3"),
        ("FP32", ["1", 2], "expected numbers, got a string as element 0"),
        ("FP32", [1, True], "expected numbers, got a boolean as element 1"),
        ("FP32", [1, None], "expected numbers, got null as element 1"),
        ("FP32", [1, [2]], "expected numbers, got an array as element 1"),
        ("FP32", [[1, 2]], "expected numbers, got an array as element 0"),
        ("FP32", {"0": 1}, "expected an array, got an object"),
        ("FP32", 1, "expected an array, got an integer"),
        ("FP32", [1, 1e39], "expected values within the range of FP32, got one beyond as element 1"),
        ("FP16", [65520, 1], "expected values within the range of FP16, got one beyond as element 0"),
        ("INT32", [1, 2.0], "expected integers, got a number with a fraction as element 1"),
        ("INT32", [True, 2], "expected integers, got a boolean as element 0"),
        ("INT8", [1, 128], "expected INT8 values from -128 to 127, got another as element 1"),
        ("UINT8", [-1, 2], "expected UINT8 values from 0 to 255, got another as element 0"),
        ("INT64", [1, 2**63], "got another as element 1"),
        ("INT64", [-1, 2**64 - 1], "got another as element 1"),
        ("UINT64", [2**64 - 1, -1], "got another as element 1"),
        ("UINT64", [1, 2**64], "expected integers, got one beyond 64 bits as element 1"),
        ("BOOL", [0, 1], "expected booleans, got an integer as element 0"),
        ("BYTES", ["a", 1], "expected strings, got an integer as element 1"),
    ],
)
def test_refuses_other_values(datatype, data, said):
    """Nothing wraps, rounds to an integer, or becomes a number silently; errors say which element."""
    with pytest.raises(InvalidInputError) as refused:
        tensor_of(data, datatype, [2])
    assert refused.value.message == f'input "x": {said}' or refused.value.message.endswith(said)
    assert refused.value.field == "inputs[0].data"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([[1, 2], [3]], "got 1 elements at depth 1"),
        ([[1, 2], 3], "got an integer in place of an array at depth 1"),
        ([[1], [2], [3], [4]], "got 4 elements at depth 0"),
        ([[[1], [2]], [[3], [4]]], "expected numbers, got an array as element 0"),
    ],
)
def test_nested_arrays_agree_with_the_shape(data, said):
    """Errors say where they do not."""
    with pytest.raises(InvalidInputError, match=said):
        tensor_of(data, "FP32", [2, 2])


def _row(numbers):
    return json.dumps([numbers[index : index + 2] for index in range(0, len(numbers), 2)])


FLAT, NESTED = json.dumps(NUMBERS), _row(NUMBERS)
LATE = len(NESTED) * 2 // 3 // len("[0.5, 0.5], ") * len("[0.5, 0.5], ") + 1


def _changed(change):
    """Return the long nested array with two rows changed, far from its beginning."""
    return NESTED[:LATE] + NESTED[LATE:].replace("[0.5, 0.5], [0.5, 0.5]", change, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (json.dumps(NUMBERS[:-1]), f"expected {2 * LONG} elements for shape [{LONG}, 2], got {2 * LONG - 1}"),
        (json.dumps([*NUMBERS, 1]), "got more"),
        (_row(NUMBERS[:-2]), f"got {2 * LONG - 2}"),
        (_row([*NUMBERS, 1, 1]), "got more"),
        (FLAT[:-1] + ",]", "a comma without an element"),
        (FLAT.replace("[0.5", "[,0.5"), "not valid JSON"),
        (FLAT[:-1] + "x]", "not valid JSON"),
        (FLAT.replace("[0.5", "[nan"), "not valid JSON"),
        (json.dumps([*NUMBERS[:-1], "x"]), f"expected numbers, got a string as element {2 * LONG - 1}"),
        (_changed("[0.5], [0.5, 0.5, 0.5]"), "brackets in other places"),
        (_changed("0.5, 0.5, 0.5, 0.5"), "brackets in other places"),
        (_changed("[[0.5, 0.5], [0.5, 0.5]]"), "brackets in other places"),
        (_changed("[0.5, 0.5] [], [0.5, 0.5]"), "brackets in other places"),
        (_changed("[0.5, 0.5], [0.5, [0.5]]"), "brackets in other places"),
        (_changed("[0.5, 0.5], [0.5 0.5]"), "brackets|not valid JSON"),
        (_changed("[0.5, 0.5], 0.5 [, 0.5]"), "brackets in other places"),
        (_changed("[0.5, 0.5], [], [0.5, 0.5]"), "brackets in other places"),
        (_changed("[0.5, 0.5], [0.5, ]"), "brackets in other places"),
        (_changed("[0.5, 0.5], [0.5, 0.5]]"), "brackets|not valid JSON|more"),
        (_changed('[0.5, 0.5], [0.5, "0.5]"]'), "expected numbers, got a string"),
        (_changed('[0.5, 0.5], [0.5, {"a": 1}]'), "expected numbers, got an object"),
    ],
)
def test_refuses_other_long_arrays(data, said):
    """As short ones, also where pieces of them would be valid on their own."""
    with pytest.raises(InvalidInputError, match=said.replace("[", r"\[")) as refused:
        tensor_of(data, "FP32", [LONG, 2])
    assert refused.value.field in {"inputs[0].data", ""}


@pytest.mark.parametrize("is_used", [True, False])
def test_poll_thread_may_work_between_steps(monkeypatch, is_used):
    """The thread that parses sleeps after each step while calls over gRPC come, and after some of them otherwise."""
    sleeps = []
    monkeypatch.setattr(json_data.POLL_THREAD, "give_way", lambda *, may_sleep: sleeps.append(may_sleep))
    monkeypatch.setattr(json_data.POLL_THREAD, "_used_until", math.inf if is_used else 0.0)
    tensor_of([0.25] * LONG, "FP32", [LONG])
    assert len(sleeps) > 8
    assert all(sleeps) if is_used else sleeps[:8] == [False, False, False, True] * 2
