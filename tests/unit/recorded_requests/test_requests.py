"""Recorded requests as JSON objects, request bodies and arrays, checked against the model."""

import numpy as np
import pytest

from inferd.recorded_requests import RecordedRequestsError, read
from tests.unit.recorded_requests.requests import BODY, MODEL, VALUES, input_form, lists, write_json, write_npz


@pytest.mark.parametrize("recorded", [VALUES, [VALUES], BODY, [BODY], [BODY, VALUES]])
def test_requests_in_json(tmp_path, recorded):
    """One or several, by name or as request bodies."""
    requests = read(write_json(tmp_path, recorded), MODEL)
    assert len(requests) == (len(recorded) if isinstance(recorded, list) else 1)
    for request in requests:
        assert lists([request]) == [{"X": [[1, 2.5], [3, 4]], "words": [b"a", "zoë".encode()]}]
        assert [array.dtype for array in request.values()] == [np.float32, object]


def test_requests_of_models_without_inputs(tmp_path):
    """An empty object and a body without inputs are requests."""
    assert read(write_json(tmp_path, [{}, {"inputs": []}]), []) == [{}, {}]


def test_input_named_inputs(tmp_path):
    """Its value distinguishes it from a request body."""
    form = input_form("INT8", "n", name="inputs")
    tensor = {"name": "inputs", "shape": [1], "datatype": "INT8", "data": [7]}
    requests = read(write_json(tmp_path, [{"inputs": [1, 2]}, {"inputs": []}, {"inputs": [tensor]}]), [form])
    assert lists(requests) == [{"inputs": [1, 2]}, {"inputs": []}, {"inputs": [7]}]


def test_one_request_in_npz(tmp_path):
    """An array per input; strings and bytes become bytes, and optional inputs are accepted."""
    for text in (np.array(["a", "zoë"]), np.char.encode(["a", "zoë"])):
        path = write_npz(tmp_path, X=np.array([[1, 2.5], [3, 4]], np.float32), words=text, k=np.array(5))
        (request,) = read(path, MODEL)
        assert lists([request]) == [{"X": [[1, 2.5], [3, 4]], "words": [b"a", "zoë".encode()], "k": 5}]


def test_several_requests_in_npz(tmp_path):
    """Ordered by number; an input may itself be named like a number and a name."""
    forms = (input_form("INT8", "n"), input_form("INT8", "n", name="1/a", optional=True))
    arrays = {"1/X": [2], "0/X": [1], "0/1/a": [3], "2/X": [4]}
    path = write_npz(tmp_path, **{key: np.array(value, np.int8) for key, value in arrays.items()})
    assert lists(read(path, forms)) == [{"X": [1], "1/a": [3]}, {"X": [2]}, {"X": [4]}]
    path = write_npz(tmp_path, **{"X": np.array([1], np.int8), "1/a": np.array([2], np.int8)})
    assert lists(read(path, forms)) == [{"X": [1], "1/a": [2]}]


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([VALUES, {"X": [[1, 2]]}], 'request 1: input "words": expected BYTES [batch], got no such input'),
        (VALUES | {"Y": 1}, 'request 0: input "Y": the model has no such input, it has X, words, k'),
        ([VALUES, [1]], "request 1: expected an object with the inputs by name, got [1]"),
        (VALUES | {"words": ["a"]}, 'request 0: input "words": expected 2 rows as in input "X", got 1'),
        ({"X": [], "words": []}, 'request 0: input "X": expected shape [batch, 2], got [1, 0]'),
        ({"inputs": [1]}, "request 0: inputs: expected objects with a name, got 1"),
        ({"inputs": [{"name": 1}]}, 'request 0: inputs: expected objects with a name, got {"name": 1}'),
        (BODY | {"more": 1}, 'request 0: expected id, inputs, outputs, parameters only, got "more"'),
        ({"inputs": 2 * BODY["inputs"]}, 'request 0: input "X": expected it once, got it again'),
        ({"inputs": BODY["inputs"][:1]}, 'request 0: input "words": expected BYTES [batch], got no such input'),
    ],
)
def test_rejects_requests_that_do_not_match_the_model(tmp_path, recorded, message):
    """The error has the number, the input, what was expected and what was found."""
    with pytest.raises(RecordedRequestsError) as caught:
        read(write_json(tmp_path, recorded), MODEL)
    assert str(caught.value) == f"examples.json: {message}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datatype": "FP64"}, 'expected datatype FP32, got "FP64"'),
        ({"shape": None}, "expected a shape, a list of integers, got null"),
        ({"shape": [1, -2]}, "expected a shape, a list of integers, got [1, -2]"),
        ({"shape": [True, 2]}, "expected a shape, a list of integers, got [true, 2]"),
        ({"shape": [2]}, "expected shape [n, 2], got [2]"),
        ({"shape": [1, 1], "data": [1]}, "expected shape [n, 2], got [1, 1]"),
        ({"data": [1]}, "expected data for shape [1, 2], got data of shape [1]"),
        ({"data": [[1], [2]]}, "expected data for shape [1, 2], got data of shape [2, 1]"),
        ({"data": ["1", "2"]}, 'expected FP32, got "1"'),
        ({"shape": [10**30, 2], "data": []}, f"expected data for shape [{10**30}, 2], got data of shape [0]"),
    ],
)
def test_rejects_invalid_tensors_in_bodies(tmp_path, change, message):
    """Type, shape and data. No batch dimension is added, as a body has the whole shape."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | change
    with pytest.raises(RecordedRequestsError) as caught:
        read(write_json(tmp_path, {"inputs": [tensor]}), [input_form("FP32", "n", 2, batch_axis=0)])
    assert str(caught.value) == f'examples.json: request 0: input "X": {message}'


def test_rejects_tensors_without_data(tmp_path):
    """As in binary bodies; and shapes that no array can have."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1]}
    with pytest.raises(RecordedRequestsError, match='input "X": expected data, got none'):
        read(write_json(tmp_path, {"inputs": [tensor]}), [input_form("FP32", "n")])
    tensor |= {"shape": [0, 10**30], "data": []}
    with pytest.raises(RecordedRequestsError, match=r'input "X": shape .* is too large'):
        read(write_json(tmp_path, {"inputs": [tensor]}), [input_form("FP32", "n", "m")])


def test_dimensions_of_the_same_name_must_match(tmp_path):
    """Unless the name is loose. Batch axes must match whatever their names."""
    forms = [
        input_form("INT8", "n", "width", batch_axis=0, name="a"),
        input_form("INT8", "m", "width", batch_axis=0, name="b"),
        input_form("INT8", "n", name="c"),
    ]
    path = write_json(tmp_path, {"a": [[1, 2]], "b": [[1, 2, 3]], "c": [1, 2, 3]})
    with pytest.raises(RecordedRequestsError, match='input "b": expected width = 2 as in input "a", got 3'):
        read(path, forms)
    assert len(read(path, forms, loose_dimensions=["width"])) == 1
    path = write_json(tmp_path, {"a": [[1], [2]], "b": [[1]], "c": []})
    with pytest.raises(RecordedRequestsError, match='input "b": expected 2 rows as in input "a", got 1'):
        read(path, forms)


def test_rejects_requests_without_rows(tmp_path):
    """As the server does."""
    path = write_npz(tmp_path, X=np.zeros((0, 2), np.float32), words=np.zeros(0, "U1"))
    with pytest.raises(RecordedRequestsError, match='request 0: input "X": expected at least 1 row, got none'):
        read(path, MODEL)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "expected requests, got none"),
        ({"X": 1, "1/X": 1}, 'expected the request\'s number in front of every name or of none, got "X"'),
        ({"0/X": 1, "2/X": 1}, "expected requests numbered from 0 on, got number 2 without number 1"),
        ({"1/X": 1}, "expected requests numbered from 0 on, got number 1 without number 0"),
        ({"01/X": 1}, 'request 0: input "01/X": the model has no such input, it has X'),
        ({"0/Y": 1}, 'request 0: input "Y": the model has no such input, it has X'),
        ({"0/X": 1, "1/X": [1]}, 'request 1: input "X": expected shape [], got [1]'),
    ],
)
def test_rejects_invalid_keys(tmp_path, arrays, message):
    """Requests are numbered without gaps, or there is one without number."""
    with pytest.raises(RecordedRequestsError) as caught:
        read(write_npz(tmp_path, **{key: np.array(value) for key, value in arrays.items()}), [input_form("INT64")])
    assert str(caught.value) == f"examples.npz: {message}"
