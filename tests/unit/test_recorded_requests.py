"""Recorded requests in files, and conversion of JSON values to arrays."""

import json
import os
import random
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd.dtypes import ALL, BY_NAME
from inferd.recorded_requests import (
    FILE_NAMES,
    InputForm,
    RecordedRequestsError,
    files,
    find,
    from_json,
    parse_json,
    read,
)

_MODEL = (
    InputForm("X", BY_NAME["FP32"], ("batch", 2), 0, False),
    InputForm("words", BY_NAME["BYTES"], ("batch",), 0, False),
    InputForm("k", BY_NAME["INT64"], (), None, True),
)
_VALUES = {"X": [[1, 2.5], [3, 4]], "words": ["a", "zoë"]}
_BODY = {
    "id": "1",
    "inputs": [
        {"name": "X", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4]},
        {"name": "words", "shape": [2], "datatype": "BYTES", "data": ["a", "zoë"]},
    ],
}


def _form(datatype, *shape, batch_axis=None, name="X", optional=False):
    return InputForm(name, BY_NAME[datatype], shape, batch_axis, optional)


def _json(folder, value):
    path = folder / "examples.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def _npz(folder, **arrays):
    path = folder / "examples.npz"
    np.savez(path, **arrays)
    return path


def _lists(requests):
    return [{name: array.tolist() for name, array in request.items()} for request in requests]


def _array_of(datatype):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)
    if datatype.name == "BYTES":
        texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode)
        return shapes.flatmap(lambda shape: hnp.arrays(object, shape, elements=texts))
    if datatype.name == "BF16":
        numbers = st.floats(width=16, allow_nan=False)
        return shapes.flatmap(lambda shape: hnp.arrays(np.float32, shape, elements=numbers)).map(
            lambda array: array.astype(ml_dtypes.bfloat16)
        )
    return shapes.flatmap(lambda shape: hnp.arrays(datatype.numpy, shape))


_ARRAYS = st.sampled_from(ALL).flatmap(lambda datatype: _array_of(datatype).map(lambda array: (datatype, array)))


def _plain(array):
    """The JSON values of an array."""
    if array.dtype.hasobject:
        return np.array([*map(bytes.decode, array.ravel()), None], object)[:-1].reshape(array.shape).tolist()
    return (array.astype(np.float32) if array.dtype.kind == "V" else array).tolist()


def _assert_same(got, expected):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    if got.dtype.hasobject:
        assert got.tolist() == expected.tolist()
    else:
        np.testing.assert_array_equal(np.asarray(got, np.float64), np.asarray(expected, np.float64))


@given(_ARRAYS)
def test_json_round_trip(case):
    """Any array of any type, written as JSON and read as its type."""
    datatype, array = case
    form = InputForm("X", datatype, array.shape, None, False)
    _assert_same(from_json(form, parse_json(json.dumps(_plain(array)))), array)


@given(st.lists(_ARRAYS, min_size=1, max_size=3))
def test_file_round_trip(tmp_path_factory, cases):
    """Any request, in each form: by name, as a request body, flat or nested, and in .npz."""
    folder = tmp_path_factory.mktemp("files")
    forms = [InputForm(f"x{n}", datatype, array.shape, None, False) for n, (datatype, array) in enumerate(cases)]
    arrays = {form.name: array for form, (_, array) in zip(forms, cases, strict=True)}
    values = {name: _plain(array) for name, array in arrays.items()}
    flat = {name: _plain(array.ravel()) for name, array in arrays.items()}
    bodies = [
        {
            "inputs": [
                {"name": form.name, "shape": form.shape, "datatype": form.datatype.name, "data": data[form.name]}
                for form in forms
            ]
        }
        for data in (values, flat)
    ]
    stored = {
        name: np.array(_plain(array), dtype=str) if array.dtype.hasobject else array
        for name, array in arrays.items()
        # numpy itself drops trailing zeros of strings.
        if not array.dtype.hasobject or not any(element.endswith(b"\0") for element in array.ravel())
    }
    requests = read(_json(folder, [values, *bodies]), forms)
    if len(stored) == len(arrays):
        requests += read(_npz(folder, **stored), forms)
    for request in requests:
        assert list(request) == list(arrays)
        for name, array in arrays.items():
            _assert_same(request[name], array)


@pytest.mark.parametrize(
    ("value", "axis", "shape"),
    [([1, 2, 3], 0, (1, 3)), ([1, 2, 3], 1, (3, 1)), ([[1, 2, 3]], 0, (1, 3)), ([[1], [2]], 1, (2, 1))],
)
def test_single_row_gets_the_batch_dimension(value, axis, shape):
    """A value that lacks only the batch dimension."""
    assert from_json(_form("INT32", "batch", None, batch_axis=axis), value).shape == shape


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
        from_json(_form("FP32", *shape, batch_axis=axis), value)
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
        from_json(_form(datatype, "batch"), value)
    assert str(caught.value) == f'input "X": {message}'


def test_rejects_recursive_values():
    """Which YAML aliases can create."""
    endless = []
    endless.append(endless)
    circular = {}
    circular["a"] = circular
    for value in (endless, [circular]):
        with pytest.raises(ValueError, match='input "X": expected'):
            from_json(_form("FP32", "batch"), value)


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
    assert str(from_json(_form("FP32", 3), parse_json("[NaN, Infinity, -Infinity]")).tolist()) == "[nan, inf, -inf]"


@pytest.mark.parametrize("recorded", [_VALUES, [_VALUES], _BODY, [_BODY], [_BODY, _VALUES]])
def test_requests_in_json(tmp_path, recorded):
    """One or several, by name or as request bodies."""
    requests = read(_json(tmp_path, recorded), _MODEL)
    assert len(requests) == (len(recorded) if isinstance(recorded, list) else 1)
    for request in requests:
        assert _lists([request]) == [{"X": [[1, 2.5], [3, 4]], "words": [b"a", "zoë".encode()]}]
        assert [array.dtype for array in request.values()] == [np.float32, object]


def test_requests_of_models_without_inputs(tmp_path):
    """An empty object and a body without inputs are requests."""
    assert read(_json(tmp_path, [{}, {"inputs": []}]), []) == [{}, {}]


def test_input_named_inputs(tmp_path):
    """Its value distinguishes it from a request body."""
    form = _form("INT8", "n", name="inputs")
    tensor = {"name": "inputs", "shape": [1], "datatype": "INT8", "data": [7]}
    requests = read(_json(tmp_path, [{"inputs": [1, 2]}, {"inputs": []}, {"inputs": [tensor]}]), [form])
    assert _lists(requests) == [{"inputs": [1, 2]}, {"inputs": []}, {"inputs": [7]}]


def test_one_request_in_npz(tmp_path):
    """An array per input; strings and bytes become bytes, and optional inputs are accepted."""
    for text in (np.array(["a", "zoë"]), np.char.encode(["a", "zoë"])):
        path = _npz(tmp_path, X=np.array([[1, 2.5], [3, 4]], np.float32), words=text, k=np.array(5))
        (request,) = read(path, _MODEL)
        assert _lists([request]) == [{"X": [[1, 2.5], [3, 4]], "words": [b"a", "zoë".encode()], "k": 5}]


def test_several_requests_in_npz(tmp_path):
    """Ordered by number; an input may itself be named like a number and a name."""
    forms = (_form("INT8", "n"), _form("INT8", "n", name="1/a", optional=True))
    arrays = {"1/X": [2], "0/X": [1], "0/1/a": [3], "2/X": [4]}
    path = _npz(tmp_path, **{key: np.array(value, np.int8) for key, value in arrays.items()})
    assert _lists(read(path, forms)) == [{"X": [1], "1/a": [3]}, {"X": [2]}, {"X": [4]}]
    path = _npz(tmp_path, **{"X": np.array([1], np.int8), "1/a": np.array([2], np.int8)})
    assert _lists(read(path, forms)) == [{"X": [1], "1/a": [2]}]


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
    (request,) = read(_npz(tmp_path, X=array), [_form(datatype, "n")])
    assert request["X"].dtype == BY_NAME[datatype].numpy
    assert request["X"].dtype.isnative
    assert request["X"].astype(np.float64).tolist() == array.astype(np.float64).tolist()


def test_accepts_any_memory_layout(tmp_path):
    """The result is C-contiguous, and a single row gets the batch dimension."""
    (request,) = read(_npz(tmp_path, X=np.arange(6, dtype=np.int32).reshape(2, 3).T), [_form("INT32", 3, 2)])
    assert request["X"].flags.c_contiguous
    assert request["X"].tolist() == [[0, 3], [1, 4], [2, 5]]
    (request,) = read(_npz(tmp_path, X=np.arange(2, dtype=np.int32)), [_form("INT32", "n", 2, batch_axis=0)])
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
        read(_npz(tmp_path, X=array), [_form(datatype, "n")])
    assert str(caught.value) == f'examples.npz: request 0: input "X": {message}'


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([_VALUES, {"X": [[1, 2]]}], 'request 1: input "words": expected BYTES [batch], got no such input'),
        (_VALUES | {"Y": 1}, 'request 0: input "Y": the model has no such input, it has X, words, k'),
        ([_VALUES, [1]], "request 1: expected an object with the inputs by name, got [1]"),
        (_VALUES | {"words": ["a"]}, 'request 0: input "words": expected 2 rows as in input "X", got 1'),
        ({"X": [], "words": []}, 'request 0: input "X": expected shape [batch, 2], got [1, 0]'),
        ({"inputs": [1]}, "request 0: inputs: expected objects with a name, got 1"),
        ({"inputs": [{"name": 1}]}, 'request 0: inputs: expected objects with a name, got {"name": 1}'),
        (_BODY | {"more": 1}, 'request 0: expected id, inputs, outputs, parameters only, got "more"'),
        ({"inputs": 2 * _BODY["inputs"]}, 'request 0: input "X": expected it once, got it again'),
        ({"inputs": _BODY["inputs"][:1]}, 'request 0: input "words": expected BYTES [batch], got no such input'),
    ],
)
def test_rejects_requests_that_do_not_match_the_model(tmp_path, recorded, message):
    """The error has the number, the input, what was expected and what was found."""
    with pytest.raises(RecordedRequestsError) as caught:
        read(_json(tmp_path, recorded), _MODEL)
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
        read(_json(tmp_path, {"inputs": [tensor]}), [_form("FP32", "n", 2, batch_axis=0)])
    assert str(caught.value) == f'examples.json: request 0: input "X": {message}'


def test_rejects_tensors_without_data(tmp_path):
    """As in binary bodies; and shapes that no array can have."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [1]}
    with pytest.raises(RecordedRequestsError, match='input "X": expected data, got none'):
        read(_json(tmp_path, {"inputs": [tensor]}), [_form("FP32", "n")])
    tensor |= {"shape": [0, 10**30], "data": []}
    with pytest.raises(RecordedRequestsError, match=r'input "X": shape .* is too large'):
        read(_json(tmp_path, {"inputs": [tensor]}), [_form("FP32", "n", "m")])


def test_dimensions_of_the_same_name_must_match(tmp_path):
    """Unless the name is loose. Batch axes must match whatever their names."""
    forms = [
        _form("INT8", "n", "width", batch_axis=0, name="a"),
        _form("INT8", "m", "width", batch_axis=0, name="b"),
        _form("INT8", "n", name="c"),
    ]
    path = _json(tmp_path, {"a": [[1, 2]], "b": [[1, 2, 3]], "c": [1, 2, 3]})
    with pytest.raises(RecordedRequestsError, match='input "b": expected width = 2 as in input "a", got 3'):
        read(path, forms)
    assert len(read(path, forms, loose_dimensions=["width"])) == 1
    path = _json(tmp_path, {"a": [[1], [2]], "b": [[1]], "c": []})
    with pytest.raises(RecordedRequestsError, match='input "b": expected 2 rows as in input "a", got 1'):
        read(path, forms)


def test_rejects_requests_without_rows(tmp_path):
    """As the server does."""
    path = _npz(tmp_path, X=np.zeros((0, 2), np.float32), words=np.zeros(0, "U1"))
    with pytest.raises(RecordedRequestsError, match='request 0: input "X": expected at least 1 row, got none'):
        read(path, _MODEL)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected requests, got none"),
        (b" \n", "expected requests, got none"),
        (b"[]", "expected requests, got none"),
        (b"[1", "invalid JSON: Expecting ',' delimiter"),
        (b'{"X": "\xff"}', "invalid JSON: 'utf-8' codec can't decode"),
        (b"[" * 100_000, "invalid JSON: values are nested too deeply"),
        (b"[" * 900 + b"]" * 900, "request 0: expected an object with the inputs by name, got "),
        (b'{"X": ' + b"[" * 900 + b"]" * 900 + b"}", 'request 0: input "X": expected at most 64 dimensions, got'),
        (b'{"X": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}", 'request 0: input "X": expected FP32, got '),
        (b'{"X": [1, 2], "X": [3, 4]}', 'invalid JSON: duplicate key "X"'),
        (b'{"X": 1e999}', "invalid JSON: 1e999 is out of range of FP64"),
        (b"PK\x03\x04", "invalid JSON: "),
    ],
)
def test_rejects_damaged_json(tmp_path, content, message):
    """Any content raises our error, which begins with the file's name."""
    path = tmp_path / "examples.json"
    path.write_bytes(content)
    with pytest.raises(RecordedRequestsError) as caught:
        read(path, _MODEL)
    assert str(caught.value).startswith(f"examples.json: {message}")


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
        read(_npz(tmp_path, **{key: np.array(value) for key, value in arrays.items()}), [_form("INT64")])
    assert str(caught.value) == f"examples.npz: {message}"


def test_rejects_other_archives(tmp_path):
    """Other files, entries that are no arrays or duplicates, and pickles, which are not loaded."""
    path, form = tmp_path / "examples.npz", _form("FP32", "n")

    def message():
        with pytest.raises(RecordedRequestsError) as caught:
            read(path, [form])
        return str(caught.value).removeprefix("examples.npz: ")

    for content in (b"", b"nonsense", b"\x93NUMPY"):
        path.write_bytes(content)
        assert message().startswith("invalid archive of arrays: ")
    np.savez(path, allow_pickle=True, X=np.array([None, os.getcwd]))
    assert message() == 'entry "X.npy" cannot be read: Object arrays cannot be loaded when allow_pickle=False'
    for name, content, expected in [
        ("X.txt", b"", 'expected entries named .npy, got "X.txt"'),
        ("X.npy", b"", 'entry "X.npy" cannot be read: '),
    ]:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("folder/", b"")
            archive.writestr(name, content)
        assert message().startswith(expected)
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("X.npy", "Y.npy"):
            with archive.open(name, "w") as entry:
                np.lib.format.write_array(entry, np.ones(1))
    path.write_bytes(path.read_bytes().replace(b"Y.npy", b"X.npy"))
    assert message() == 'expected each entry once, got "X.npy" again'
    with zipfile.ZipFile(path, "w") as archive, archive.open("X.npy", "w") as entry:
        np.lib.format.write_array(entry, np.ones(1))
        entry.write(b"more")
    assert message() == 'expected one array in entry "X.npy", got trailing bytes'


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_archives(tmp_path, save):
    """Changed or missing bytes give a request or our error."""
    path = tmp_path / "examples.npz"
    save(path, X=np.array([[1, 2.5], [3, 4]], np.float32), words=np.array(["a", "zoë"]))
    whole, dice, texts = path.read_bytes(), random.Random(1), []
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content[: dice.choice([len(content), dice.randrange(len(content))])])
        try:
            read(path, _MODEL)
        except RecordedRequestsError as error:
            texts.append(str(error))
    assert len(texts) > 200
    assert [text for text in texts if not text.startswith("examples.npz: ")] == []


def test_unreadable_files(tmp_path):
    """The error names the file without its directory."""
    for name, message in [
        ("examples.json", "cannot be read: No such file or directory"),
        ("examples.npz", "cannot be read: No such file or directory"),
        ("examples.txt", "expected a file named .json or .npz"),
    ]:
        with pytest.raises(RecordedRequestsError) as caught:
            read(tmp_path / name, _MODEL)
        assert str(caught.value) == f"{name}: {message}"
    (tmp_path / "examples.json").mkdir()
    with pytest.raises(RecordedRequestsError, match=r"^examples\.json: cannot be read: Is a directory$"):
        read(tmp_path / "examples.json", _MODEL)


def test_files_that_are_too_large(tmp_path, monkeypatch):
    """Compressed or not; and a pipe, which may be endless."""
    monkeypatch.setattr(files, "_MAX_BYTES", 500)
    packed, pipe = tmp_path / "examples.npz", tmp_path / "pipe.npz"
    np.savez_compressed(packed, x=np.zeros((100, 2), np.float32))
    assert packed.stat().st_size < 500
    os.mkfifo(pipe)
    (tmp_path / "examples.json").write_text(" " * 501)
    for path, text in [
        (packed, "expected arrays of at most 500 bytes, got 928"),
        (tmp_path / "examples.json", "cannot be read: expected at most 500 bytes, got more"),
        (pipe, "cannot be read: not a file but a pipe"),
    ]:
        with pytest.raises(RecordedRequestsError) as caught:
            read(path, _MODEL)
        assert str(caught.value) == f"{path.name}: {text}"


def test_finds_the_file_beside_a_model(tmp_path):
    """None, or one of either kind, also a dangling link, but not both."""
    assert find(tmp_path) is None
    assert find(tmp_path / "nowhere") is None
    for name in FILE_NAMES:
        (tmp_path / name).symlink_to("nowhere")
        assert find(tmp_path) == tmp_path / name
        (tmp_path / name).unlink()
    for name in FILE_NAMES:
        (tmp_path / name).touch()
    with pytest.raises(RecordedRequestsError, match=r"^expected either examples\.npz or examples\.json, got both$"):
        find(tmp_path)


def test_imports_little():
    """Neither ONNX Runtime nor gRPC nor pydantic."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, inferd.recorded_requests; print({'onnxruntime', 'grpc', 'pydantic'} & set(sys.modules))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
