"""Inputs of requests, and requests and answers as bytes."""

import json

import ml_dtypes
import numpy as np
import pytest

from inferd._generated.inference import grpc_service_pb2 as oip
from inferd.bench import inputs, tensors
from inferd.bench.inputs import InputsError
from inferd.bench.server import ModelForm, TensorForm
from inferd.dtypes import ALL


def _model(*forms):
    tensors_ = tuple(TensorForm(name=name, datatype=datatype, shape=shape) for name, datatype, shape in forms)
    return ModelForm(name="m", platform="", inputs=tensors_)


def _generate(model, rows=1, samples=2, seed=0, **sizes):
    return inputs.generate(model, rows, sizes, samples, np.random.default_rng(seed))


def test_shapes_are_those_declared_with_rows():
    """The first dimension counts rows where it is dynamic; others are given."""
    model = _model(("ids", "INT64", (-1, -1)), ("x", "FP32", (-1, 3, 4)), ("row", "BOOL", (-1,)))
    for arrays in _generate(model, rows=5, ids=(7,)):
        assert {name: array.shape for name, array in arrays.items()} == {"ids": (5, 7), "x": (5, 3, 4), "row": (5,)}


def test_seed_repeats_values():
    """The same seed gives the same requests; the samples differ from each other."""
    model = _model(("x", "FP32", (-1, 8)))
    first, second = _generate(model)
    assert np.array_equal(first["x"], _generate(model)[0]["x"])
    assert not np.array_equal(first["x"], second["x"])


@pytest.mark.parametrize("datatype", ALL, ids=lambda datatype: datatype.name)
def test_requests_carry_every_datatype(datatype):
    """What is sent can be read back as what it was."""
    array = _generate(_model(("x", datatype.name, (-1, 2))), rows=3)[0]["x"]
    assert array.dtype == datatype.numpy
    request = oip.ModelInferRequest.FromString(tensors.request_message("m", "1", {"x": array}, priority=2))
    assert (request.model_name, request.model_version, request.parameters["priority"].uint64_param) == ("m", "1", 2)
    response = oip.ModelInferResponse(
        outputs=[{"name": "y", "datatype": request.inputs[0].datatype, "shape": request.inputs[0].shape}],
        raw_output_contents=request.raw_input_contents,
    )
    answer = tensors.answer(response.SerializeToString())["y"]
    assert answer.dtype == array.dtype
    assert tensors.difference({"y": array}, {"y": answer}, tolerance=0) == ""


@pytest.mark.parametrize(
    ("form", "rows", "sizes", "message"),
    [
        (("x", "FP32", (-1, -1, 3)), 1, {}, "its shape [-1, -1, 3] is dynamic, expected --shape x:N,3"),
        (
            ("x", "FP32", (-1, 64)),
            10**8,
            {},
            "rows 100000000: expected at most 2147483647 bytes in a request, got 25600",
        ),
        (("x", "FP32", (-1, -1)), 1, {"x": (2, 3)}, "--shape x: expected sizes for [-1], the shape without the rows"),
        (("x", "FP32", (-1, 4)), 1, {"x": (5,)}, "the shape without the rows, got [5]"),
        (("x", "FP32", (-1, 4)), 1, {"z": (4,)}, '--shape z: model "m" has no such input, it has x'),
        (("x", "FP32", (1, 4)), 2, {}, '--rows 2: input "x" has the fixed shape [1, 4], expected 1'),
        (("x", "FP8", (-1,)), 1, {}, 'input "x": datatype "FP8" is not known'),
    ],
)
def test_invalid_inputs(form, rows, sizes, message):
    """Which one, what was expected and what came."""
    with pytest.raises(InputsError) as error:
        _generate(_model(form), rows=rows, **sizes)
    assert message in str(error.value)


def test_fixed_shape_is_sent_as_it_is():
    """Of a model that takes one row."""
    assert _generate(_model(("x", "FP32", (1, 4))))[0]["x"].shape == (1, 4)


def test_recorded_requests(tmp_path):
    """As `inferd infer --example` reads them; each has the rows that it has."""
    model = _model(("x", "FP32", (-1, 2)))
    path = tmp_path / "examples.json"
    path.write_text(json.dumps([{"x": [1, 2]}, {"x": [[1, 2], [3, 4], [5, 6]]}]))
    requests = inputs.read(path, model)
    assert [inputs.rows_of(model, arrays) for arrays in requests] == [1, 3]
    np.savez(tmp_path / "examples.npz", x=np.ones((4, 2), np.float32))
    assert inputs.rows_of(model, inputs.read(tmp_path / "examples.npz", model)[0]) == 4
    with pytest.raises(InputsError, match=r"expected a file \.json or \.npz"):
        inputs.read(tmp_path / "examples.csv", model)


def test_typed_answers_are_read():
    """Servers may answer with typed lists instead of raw bytes."""
    response = oip.ModelInferResponse(
        outputs=[
            {"name": "y", "datatype": "FP32", "shape": [2], "contents": {"fp32_contents": [1.5, 2.5]}},
            {"name": "s", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [b"a\0"]}},
        ]
    )
    answer = tensors.answer(response.SerializeToString())
    assert answer["y"].tolist() == [1.5, 2.5]
    assert answer["s"].tolist() == [b"a\0"]


@pytest.mark.parametrize(
    ("got", "text"),
    [
        ({"y": np.float32([1.0005, 2])}, ""),
        ({"y": np.float32([1.01, 2])}, 'output "y": differs by up to 0.01'),
        ({"y": np.float32([[1, 2]])}, 'output "y": expected float32 [2], got float32 [1, 2]'),
        ({"y": np.float64([1, 2])}, 'output "y": expected float32 [2], got float64 [2]'),
        ({"z": np.float32([1, 2])}, "expected the outputs y, got z"),
        ({}, "expected the outputs y, got none"),
    ],
)
def test_answers_are_compared(got, text):
    """Numbers within the tolerance; names, shapes and types exactly."""
    assert tensors.difference({"y": np.float32([1, 2])}, got, tolerance=1e-3) == text


def test_half_precision_and_integers_are_compared():
    """bfloat16 within the tolerance, integers exactly, and nan as itself."""
    half = np.array([1.0, np.nan], ml_dtypes.bfloat16)
    assert tensors.difference({"y": half}, {"y": half.copy()}, tolerance=0) == ""
    assert tensors.difference({"y": half}, {"y": half + ml_dtypes.bfloat16(1)}, tolerance=1e-3)
    assert tensors.difference({"y": np.array([1000])}, {"y": np.array([1001])}, tolerance=0.1)
