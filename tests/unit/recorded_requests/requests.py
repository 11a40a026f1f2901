"""Requests of a small model, and the files that record them."""

import json

import numpy as np

from inferd.dtypes import BY_NAME
from inferd.recorded_requests import InputForm

MODEL = (
    InputForm("X", BY_NAME["FP32"], ("batch", 2), 0, False),
    InputForm("words", BY_NAME["BYTES"], ("batch",), 0, False),
    InputForm("k", BY_NAME["INT64"], (), None, True),
)
VALUES = {"X": [[1, 2.5], [3, 4]], "words": ["a", "zoë"]}

BODY = {
    "id": "1",
    "inputs": [
        {"name": "X", "shape": [2, 2], "datatype": "FP32", "data": [1, 2.5, 3, 4]},
        {"name": "words", "shape": [2], "datatype": "BYTES", "data": ["a", "zoë"]},
    ],
}


def input_form(datatype, *shape, batch_axis=None, name="X", optional=False):
    return InputForm(name, BY_NAME[datatype], shape, batch_axis, optional)


def write_json(folder, value):
    path = folder / "examples.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def write_npz(folder, **arrays):
    path = folder / "examples.npz"
    np.savez(path, **arrays)
    return path


def lists(requests):
    return [{name: array.tolist() for name, array in request.items()} for request in requests]
