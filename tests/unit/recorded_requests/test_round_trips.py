"""Any array of any type, written in each form and read again."""

import json

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inferd.dtypes import ALL
from inferd.recorded_requests import InputForm, from_json, parse_json, read
from tests.unit.recorded_requests.requests import write_json, write_npz


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
    requests = read(write_json(folder, [values, *bodies]), forms)
    if len(stored) == len(arrays):
        requests += read(write_npz(folder, **stored), forms)
    for request in requests:
        assert list(request) == list(arrays)
        for name, array in arrays.items():
            _assert_same(request[name], array)
