"""What a request's inputs come to, and what is refused of them."""

import math

import numpy as np
import pytest

from inferd.errors import InvalidInputError
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


@pytest.mark.parametrize(
    ("signature", "inputs", "rows", "nbytes"),
    [
        (ONE, {"x": zeros(3, 4)}, 3, 48),
        (FIXED, {"x": zeros(1, 3, 2, 5), "size": zeros(2, dtype=np.int64)}, 1, 136),
        (FIXED, {"x": zeros(1, 3, 0, 5), "size": zeros(2, dtype=np.int64)}, 1, 16),
    ],
)
def test_inputs_that_fit_are_counted(signature, inputs, rows, nbytes):
    """Rows are counted along the batch axis, and an empty tensor is a tensor."""
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
def test_inputs_that_do_not_fit_are_refused_by_name(signature, inputs, message):
    """The message says which input, what was expected and what came."""
    with pytest.raises(InvalidInputError) as refused:
        signature.check(inputs)
    assert message in refused.value.message


def tokens(ids: tuple[int, int], mask: tuple[int, int], scale: float = 1) -> dict[str, np.ndarray]:
    return {"ids": zeros(*ids, dtype=np.int64), "mask": zeros(*mask, dtype=np.int64), "scale": np.array(scale, F32)}


def test_inputs_must_agree_on_their_rows():
    """Rows are compared across inputs."""
    with pytest.raises(InvalidInputError, match='input "mask": expected 2 rows as in input "ids", got 3'):
        TEXT.check(tokens((2, 7), (3, 7)))


def test_inputs_must_agree_on_named_dimensions():
    """A name stands for one size in all inputs."""
    with pytest.raises(InvalidInputError, match='input "mask": expected seq = 7 as in input "ids", got 5'):
        TEXT.check(tokens((2, 7), (2, 5)))


def test_requests_of_different_lengths_have_different_keys():
    """They cannot be stacked."""
    assert TEXT.check(tokens((2, 7), (2, 7))).stack_key == TEXT.check(tokens((3, 7), (3, 7))).stack_key
    assert TEXT.check(tokens((2, 7), (2, 7))).stack_key != TEXT.check(tokens((2, 8), (2, 8))).stack_key


def test_requests_with_different_shared_values_have_different_keys():
    """A value that holds for the whole batch must be the same for all of it."""
    plain = TEXT.check(tokens((2, 7), (2, 7))).stack_key
    assert plain != TEXT.check(tokens((2, 7), (2, 7), scale=2)).stack_key
    nan = [TEXT.check(tokens((2, 7), (2, 7), scale=math.nan)).stack_key for _ in range(2)]
    assert nan[0] == nan[1]


def test_shared_strings_are_compared_by_value():
    """And by shape, so that a list of two is not a column of two."""
    shared = signature([spec("x", ("batch",), 0), spec("words", (None, None), datatype="BYTES")])

    def key(words: list[list[bytes]]) -> object:
        return shared.check({"x": zeros(1), "words": np.array(words, object)}).stack_key

    assert key([[b"a", b"b"]]) == key([[b"a", b"b"]])
    assert key([[b"a", b"b"]]) != key([[b"a", b"c"]])
    assert key([[b"a", b"b"]]) != key([[b"a"], [b"b"]])


def test_the_key_is_empty_where_nothing_can_differ():
    """Nothing to compare costs nothing to compare."""
    assert ONE.check({"x": zeros(1, 4)}).stack_key == ()
    assert FIXED.check({"x": zeros(1, 3, 1, 1), "size": zeros(2, dtype=np.int64)}).stack_key == ()


def test_a_shared_input_s_open_dimension_is_not_its_rows():
    """Only the batch axis counts rows."""
    shared = signature([spec("x", ("batch", 2), 0), spec("table", ("entries", 2))])
    assert shared.check({"x": zeros(3, 2), "table": zeros(9, 2)}).rows == 3


def test_strings_count_with_their_contents():
    """A queue bounded in bytes must see them."""
    short = WORDS.check({"text": np.array([b"a"], object)}).nbytes
    assert WORDS.check({"text": np.array([b"a" * 1000], object)}).nbytes == short + 999


@pytest.mark.parametrize("words", [[b"\xff"], [b"fine", b"\xc3"], [b"\xc3", b"\xa9"]])
def test_strings_that_are_not_utf8_are_refused(words):
    """ONNX Runtime cannot take them; a sequence cut in two between elements is found as well."""
    with pytest.raises(InvalidInputError, match='input "text": expected UTF-8 text, got other bytes'):
        WORDS.check({"text": np.array(words, object)})


def test_any_utf8_is_taken():
    """Text of any language, zero bytes and nothing at all."""
    words = np.array(["ß日本".encode(), b"a\0b", b""], object)
    assert WORDS.check({"text": words}).rows == 3


def test_outputs_are_all_unless_named():
    """In the model's order, or in the caller's."""
    assert ONE.select_outputs(()) == ("y", "z")
    assert ONE.select_outputs(("z",)) == ("z",)
    assert ONE.select_outputs(("z", "y")) == ("z", "y")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("y", "q"), 'output "q": expected one of "y", "z", got an unknown name'),
        (("y", "y"), 'output "y": expected each output once, got it twice'),
    ],
)
def test_outputs_that_make_no_sense_are_refused(names, message):
    """An unknown name and a name given twice."""
    with pytest.raises(InvalidInputError) as refused:
        ONE.select_outputs(names)
    assert refused.value.message == message


@pytest.mark.parametrize(("axis", "batchable"), [(0, False), (None, True)])
def test_a_signature_that_contradicts_itself_cannot_be_made(axis, batchable):
    """Batchable and the batch axes say the same."""
    with pytest.raises(ValueError, match="batch axis"):
        ModelSignature(inputs=(spec("x", ("batch",), axis),), outputs=(), batchable=batchable)
