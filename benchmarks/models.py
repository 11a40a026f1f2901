"""Synthetic models whose weights are random but always the same."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def write_mlp(path: Path, widths: tuple[int, ...]) -> None:
    """Write a chain of dense layers with ReLU between: ``x`` FP32 [batch, first] to ``y`` FP32 [batch, last]."""
    random = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    last = len(widths) - 2
    for index, (before, after) in enumerate(pairwise(widths)):
        weight = (random.standard_normal((before, after)) / np.sqrt(before)).astype(np.float32)
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        dense = "y" if index == last else f"dense{index}"
        nodes.append(helper.make_node("MatMul", [current, f"w{index}"], [dense]))
        if index != last:
            current = f"hidden{index}"
            nodes.append(helper.make_node("Relu", [dense], [current]))
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", widths[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", widths[-1]])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


#: By name: layer widths. One run of ``small`` takes about 10 µs, so that the server is what is measured.
MLPS = {"small": (64, 128, 10), "mid": (1024, 4096, 4096, 1000)}
