"""Models of the attacked server: inputs of each type that messages can have, and long runs."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import onnx_models

_SUMMED = {
    "numbers": TensorProto.INT64,
    "singles": TensorProto.FLOAT,
    "halves": TensorProto.FLOAT16,
    "flags": TensorProto.BOOL,
    "octets": TensorProto.UINT8,
}
_OPSET = helper.make_opsetid("", 18)


def write(folder: Path) -> list[Path]:
    """Write all models to ``folder``, and return the paths to serve."""
    made = {name: _sums(name, element) for name, element in _SUMMED.items()}
    made |= {"texts": _first_text(), "trips": _trips(), "boxes": onnx_models.one_long_operator()}
    for name, model in made.items():
        onnx_models.save(model, folder / name / "1" / "model.onnx")
    return [folder / name for name in made]


def _sums(name: str, element: int) -> onnx.ModelProto:
    """Build ``total = sum of x along its length`` in FP32, x [batch,length] of any type of number."""
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axis"], ["total"], keepdims=1),
    ]
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    return _model(name, nodes, _value("x", element, ["batch", "length"]), _value("total", 1, ["batch", 1]), axis)


def _first_text() -> onnx.ModelProto:
    """Build ``total = the first text of each row``, of strings [batch,length]."""
    node = helper.make_node("Gather", ["x", "first"], ["total"], axis=1)
    first = numpy_helper.from_array(np.array([0], np.int64), "first")
    element = TensorProto.STRING
    return _model(
        "texts", [node], _value("x", element, ["batch", "length"]), _value("total", element, ["batch", 1]), first
    )


def _trips() -> onnx.ModelProto:
    """Build ``total = x``, INT64 [1], by a loop of x iterations."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["count", "one"], ["counted"]),
        ],
        "round",
        [
            _value("index", TensorProto.INT64, []),
            _value("go_on", TensorProto.BOOL, []),
            _value("count", TensorProto.INT64, [1]),
        ],
        [_value("goes_on", TensorProto.BOOL, []), _value("counted", TensorProto.INT64, [1])],
    )
    nodes = [
        helper.make_node("Squeeze", ["x", "axis"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "zero"], ["total"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array([number], np.int64), name)
        for name, number in (("axis", 0), ("zero", 0), ("one", 1))
    ]
    return _model(
        "trips", nodes, _value("x", TensorProto.INT64, [1]), _value("total", TensorProto.INT64, [1]), *constants
    )


def _value(name: str, element: int, shape: list[str | int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def _model(
    name: str, nodes: list[onnx.NodeProto], given: onnx.ValueInfoProto, made: onnx.ValueInfoProto, *weights: TensorProto
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, name, [given], [made], list(weights))
    return helper.make_model(graph, opset_imports=[_OPSET], ir_version=9)
