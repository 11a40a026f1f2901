"""Validation of requests against a signature."""

import math

import numpy as np
import pytest

from inferd.errors import InvalidInputError, Place
from inferd.runtime.signature import ModelSignature
from tests.unit.runtime.specs import signature, spec

F32 = np.float32


def zeros(*shape: int, dtype: type = F32) -> np.ndarray:
    return np.zeros(shape, dtype)


ONE = signature([spec("x", ("batch", 4), 0)], [spec("y", ("batch",), 0), spec("z", ("batch",), 0)])
TEXT = signature(
    [spec("ids", ("batch", "seq"), 0, "INT64"), spec("mask", ("batch", "seq"), 0, "INT64"), spec("scale", ())]
)
WORDS = signature([spec("text", ("batch",), 0, "BYTES")])
FIXED = signature([spec("x", (1, 3, "h", "w")), spec("size", (2,), datatype="INT64")])
OPTIONAL = signature(
    [
        spec("x", ("batch", 2), 0),
        spec("scale", (), optional=True),
        spec("shift", ("length",), optional=True),
        spec("state", ("batch", 3), 0, optional=True),
    ]
)


@pytest.mark.parametrize(
    ("signature", "inputs", "rows", "nbytes"),
    [
        (ONE, {"x": zeros(3, 4)}, 3, 48),
        (FIXED, {"x": zeros(1, 3, 2, 5), "size": zeros(2, dtype=np.int64)}, 1, 136),
        (FIXED, {"x": zeros(1, 3, 0, 5), "size": zeros(2, dtype=np.int64)}, 1, 16),
    ],
)
def test_counts_rows_and_bytes(signature, inputs, rows, nbytes):
    """Rows are counted along the batch axis; empty tensors are allowed."""
    checked = signature.check(inputs)
    assert (checked.rows, checked.nbytes) == (rows, nbytes)


@pytest.mark.parametrize(
    ("signature", "inputs", "message"),
    [
        (ONE, {}, 'input "x": expected FP32 [batch,4], got no such input'),
        (ONE, {"X": zeros(1, 4)}, 'input "X": expected one of "x", got an unknown name'),
        (ONE, {"x": zeros(1, 4), "more": zeros(1)}, 'input "more": expected one of "x", got an unknown name'),
        (ONE, {"x": zeros(1, 4, dtype=np.float64)}, 'input "x": expected FP32, got FP64'),
        (ONE, {"x": zeros(1, 4, dtype=np.complex64)}, 'input "x": expected FP32, got complex64'),
        (ONE, {"x": zeros(1, 4, dtype=np.dtype(">f4"))}, 'input "x": expected FP32, got >f4'),
        (ONE, {"x": zeros(4)}, 'input "x": expected shape [batch,4], got [4]'),
        (ONE, {"x": zeros(1, 5)}, 'input "x": expected shape [batch,4], got [1,5]'),
        (ONE, {"x": zeros(0, 4)}, 'input "x": expected at least 1 row, got shape [0,4]'),
        (FIXED, {"x": zeros(2, 3, 2, 5), "size": zeros(2, dtype=np.int64)}, "expected shape [1,3,h,w], got [2,3,2,5]"),
    ],
)
def test_rejects_inputs_that_do_not_fit(signature, inputs, message):
    """Naming the input, the expected and the given."""
    with pytest.raises(InvalidInputError) as refused:
        signature.check(inputs)
    assert message in refused.value.message


def tokens(ids: tuple[int, int], mask: tuple[int, int], scale: float = 1) -> dict[str, np.ndarray]:
    return {"ids": zeros(*ids, dtype=np.int64), "mask": zeros(*mask, dtype=np.int64), "scale": np.array(scale, F32)}


def test_rejects_different_numbers_of_rows():
    """Across the inputs of a request."""
    with pytest.raises(InvalidInputError, match='input "mask": expected 2 rows as in input "ids", got 3'):
        TEXT.check(tokens((2, 7), (3, 7)))


def test_rejects_different_sizes_of_named_dimension():
    """A name stands for one size in all inputs."""
    with pytest.raises(InvalidInputError, match='input "mask": expected seq = 7 as in input "ids", got 5'):
        TEXT.check(tokens((2, 7), (2, 5)))


def test_stack_key_has_open_sizes():
    """Requests of different lengths cannot be stacked."""
    assert TEXT.check(tokens((2, 7), (2, 7))).stack_key == TEXT.check(tokens((3, 7), (3, 7))).stack_key
    assert TEXT.check(tokens((2, 7), (2, 7))).stack_key != TEXT.check(tokens((2, 8), (2, 8))).stack_key


def test_stack_key_has_shared_values():
    """A shared value must be the same for the whole batch."""
    plain = TEXT.check(tokens((2, 7), (2, 7))).stack_key
    assert plain != TEXT.check(tokens((2, 7), (2, 7), scale=2)).stack_key
    nan = [TEXT.check(tokens((2, 7), (2, 7), scale=math.nan)).stack_key for _ in range(2)]
    assert nan[0] == nan[1]


def test_stack_key_has_shared_strings():
    """By value and by shape."""
    shared = signature([spec("x", ("batch",), 0), spec("words", (None, None), datatype="BYTES")])

    def key(words: list[list[bytes]]) -> object:
        return shared.check({"x": zeros(1), "words": np.array(words, object)}).stack_key

    assert key([[b"a", b"b"]]) == key([[b"a", b"b"]])
    assert key([[b"a", b"b"]]) != key([[b"a", b"c"]])
    assert key([[b"a", b"b"]]) != key([[b"a"], [b"b"]])


def test_stack_key_is_empty_for_fixed_shapes():
    """Comparing it costs nothing."""
    assert ONE.check({"x": zeros(1, 4)}).stack_key == ()
    assert FIXED.check({"x": zeros(1, 3, 1, 1), "size": zeros(2, dtype=np.int64)}).stack_key == ()


def test_open_dimension_of_shared_input_is_not_rows():
    """Only the batch axis counts rows."""
    shared = signature([spec("x", ("batch", 2), 0), spec("table", ("entries", 2))])
    assert shared.check({"x": zeros(3, 2), "table": zeros(9, 2)}).rows == 3


def test_counts_bytes_of_strings():
    """The byte limit of the queue needs them."""
    short = WORDS.check({"text": np.array([b"a"], object)}).nbytes
    assert WORDS.check({"text": np.array([b"a" * 1000], object)}).nbytes == short + 999


@pytest.mark.parametrize("words", [[b"\xff"], [b"fine", b"\xc3"], [b"\xc3", b"\xa9"]])
def test_rejects_invalid_utf8(words):
    """Also a sequence split between two elements; ONNX Runtime cannot take it."""
    with pytest.raises(InvalidInputError, match='input "text": expected UTF-8 text, got other bytes'):
        WORDS.check({"text": np.array(words, object)})


def test_accepts_valid_utf8():
    """Any language, zero bytes, and empty strings."""
    words = np.array(["ß日本".encode(), b"a\0b", b""], object)
    assert WORDS.check({"text": words}).rows == 3


def given(rows: int = 1, **optional: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": zeros(rows, 2), **optional}


def test_optional_inputs_may_be_omitted():
    """All or some; those present count."""
    assert OPTIONAL.check(given(3)).rows == 3
    assert OPTIONAL.check(given(3)).nbytes == 24
    assert OPTIONAL.check(given(3, scale=np.array(1, F32))).nbytes == 28
    assert OPTIONAL.check(given(3, state=zeros(3, 3), shift=zeros(5))).nbytes == 24 + 36 + 20


def test_stack_key_has_optional_inputs():
    """Requests are stacked if they have the same ones, with equal shared values."""
    requests = {
        "none": given(),
        "scale 0": given(scale=np.array(0, F32)),
        "scale 1": given(scale=np.array(1, F32)),
        "shift": given(shift=zeros(1)),
        "longer shift": given(shift=zeros(2)),
        "both": given(scale=np.array(0, F32), shift=zeros(1)),
        "state": given(state=zeros(1, 3)),
    }
    keys = {name: OPTIONAL.check(inputs).stack_key for name, inputs in requests.items()}
    assert len(set(keys.values())) == len(keys)
    assert keys["none"] == ()
    again = {"scale": np.array(0, F32), "x": zeros(4, 2)}
    assert OPTIONAL.check(again).stack_key == keys["scale 0"]
    assert OPTIONAL.check(given(2, state=np.ones((2, 3), F32))).stack_key == keys["state"]


def test_unbatchable_model_has_empty_stack_key():
    """Each request runs alone."""
    alone = signature([spec("x", (1,)), spec("scale", (), optional=True)])
    assert alone.check({"x": zeros(1), "scale": np.array(1, F32)}).stack_key == ()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"scale": np.array(1, F32)}, 'input "x": expected FP32 [batch,2], got no such input'),
        ({"scale": np.array(1, F32), "shift": zeros(1)}, 'input "x": expected FP32 [batch,2], got no such input'),
        (given(more=zeros(1)), 'input "more": expected one of "x", "scale", "shift", "state", got an unknown name'),
        (given(scale=zeros(1)), 'input "scale": expected shape [], got [1]'),
        (given(scale=np.array(1)), 'input "scale": expected FP32, got INT64'),
        (given(2, state=zeros(1, 3)), 'input "state": expected 2 rows as in input "x", got 1'),
    ],
)
def test_rejects_invalid_optional_and_missing_inputs(inputs, message):
    """Optional inputs are checked if present; required ones must be present."""
    with pytest.raises(InvalidInputError) as refused:
        OPTIONAL.check(inputs)
    assert refused.value.message == message


def test_loose_dimensions_may_differ():
    """Such requests are stacked only if their sizes are equal; other names are still compared."""
    inputs = [spec("question", ("batch", "seq", "width"), 0), spec("context", ("batch", "seq", "width"), 0)]
    loose = ModelSignature(inputs=tuple(inputs), outputs=(), batchable=True, loose_dimensions=frozenset({"seq"}))
    checked = loose.check({"question": zeros(1, 8, 2), "context": zeros(1, 64, 2)})
    assert checked.stack_key == loose.check({"question": zeros(3, 8, 2), "context": zeros(3, 64, 2)}).stack_key
    assert checked.stack_key != loose.check({"question": zeros(1, 64, 2), "context": zeros(1, 8, 2)}).stack_key
    with pytest.raises(InvalidInputError, match='input "context": expected width = 2 as in input "question", got 3'):
        loose.check({"question": zeros(1, 8, 2), "context": zeros(1, 64, 3)})
    with pytest.raises(InvalidInputError, match='input "context": expected seq = 8 as in input "question", got 64'):
        signature(inputs).check({"question": zeros(1, 8, 2), "context": zeros(1, 64, 2)})


def test_selects_all_outputs_by_default():
    """In the model's order, or in the client's."""
    assert ONE.select_outputs(()) == ("y", "z")
    assert ONE.select_outputs(("z",)) == ("z",)
    assert ONE.select_outputs(("z", "y")) == ("z", "y")


def test_removes_duplicate_outputs():
    """As Triton does: at the position of the first."""
    assert ONE.select_outputs(("z", "y", "z", "z", "y")) == ("z", "y")


def test_rejects_unknown_output():
    """Listing the known ones."""
    with pytest.raises(InvalidInputError) as refused:
        ONE.select_outputs(("y", "q"))
    assert refused.value.message == 'output "q": expected one of "y", "z", got an unknown name'
    assert refused.value.at == Place("output", "q", "name")


@pytest.mark.parametrize(("axis", "batchable"), [(0, False), (None, True)])
def test_rejects_inconsistent_signature(axis, batchable):
    """Batchable and the batch axes must agree."""
    with pytest.raises(ValueError, match="batch axis"):
        ModelSignature(inputs=(spec("x", ("batch",), axis),), outputs=(), batchable=batchable)


def test_rejects_batch_axis_on_optional_input_alone():
    """The input may be omitted."""
    with pytest.raises(ValueError, match="no required input with a batch axis"):
        ModelSignature(inputs=(spec("x", ("batch",), 0, optional=True),), outputs=(), batchable=True)
