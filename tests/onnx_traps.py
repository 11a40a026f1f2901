"""Models that ONNX Runtime cannot open: they need what it has not, crash it, or take it forever."""

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.onnx_models import OPSET, _constant, _float, _model, _node, _value, linear


def custom_operator() -> onnx.ModelProto:
    """Build ``loud = upper case of text`` on strings [batch], with an operator of onnxruntime-extensions."""
    model = _model(
        [helper.make_node("StringUpper", ["text"], ["loud"], domain="ai.onnx.contrib")],
        [_value("text", TensorProto.STRING, ["batch"])],
        [_value("loud", TensorProto.STRING, ["batch"])],
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    return model


def future_opset(version: int = 999) -> onnx.ModelProto:
    """Build `linear` for an operator set that no runtime knows yet."""
    model = linear()
    model.opset_import[0].version = version
    return model


def crashes_when_opened() -> onnx.ModelProto:
    """Build ``y = x + (smallest INT64 / -1)``, a constant: ONNX Runtime computes it when it opens the file.

    The quotient is out of range, and the processor ends the process with SIGFPE.
    """
    return _model(
        [
            _node("Div", ["smallest", "minus_one"], ["quotient"]),
            _node("Cast", ["quotient"], ["as_float"], to=TensorProto.FLOAT),
            _node("Add", ["x", "as_float"], ["y"]),
        ],
        [_float("x", ["batch", 3])],
        [_float("y", ["batch", 3])],
        [_constant("smallest", np.array([-(2**63)], np.int64)), _constant("minus_one", np.array([-1], np.int64))],
    )


def crashes_when_run() -> onnx.ModelProto:
    """Build ``y = x / -1`` for INT64 [batch]: the run of the smallest INT64 ends the process with SIGFPE."""
    return _model(
        [_node("Div", ["x", "minus_one"], ["y"])],
        [_value("x", TensorProto.INT64, ["batch"])],
        [_value("y", TensorProto.INT64, ["batch"])],
        [_constant("minus_one", np.array([-1], np.int64))],
    )


def hangs_when_opened(depth: int = 40) -> onnx.ModelProto:
    """Build ``y = x`` by a function that calls another one twice, and so on: 2 to the ``depth`` operators in the end.

    ONNX Runtime puts the operators in the place of the calls when it opens the file, of 3 KB at the default depth.
    """
    model = _model([helper.make_node("f0", ["x"], ["y"], domain="local")], [_float("x", [3])], [_float("y", [3])])
    model.opset_import.append(helper.make_opsetid("local", 1))
    for level in range(depth):
        domain, operator = ("local", f"f{level + 1}") if level + 1 < depth else ("", "Relu")
        calls = [helper.make_node(operator, [a], [b], domain=domain) for a, b in (("a", "between"), ("between", "b"))]
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("local", 1)]
        model.functions.append(helper.make_function("local", f"f{level}", ["a"], ["b"], calls, opsets))
    return model


def needs_memory_when_opened(width: int = 8192) -> onnx.ModelProto:
    """Build ``y = x + a constant``, the sum of the product of two matrices of 4 bytes times the squared ``width``.

    ONNX Runtime computes it when it opens the file, of 200 bytes.
    """
    return _model(
        [
            _node("Expand", ["one", "shape"], ["matrix"]),
            _node("MatMul", ["matrix", "matrix"], ["product"]),
            _node("ReduceSum", ["product"], ["sum"], keepdims=0),
            _node("Add", ["x", "sum"], ["y"]),
        ],
        [_float("x", ["batch", 3])],
        [_float("y", ["batch", 3])],
        [_constant("one", np.ones((1, 1), np.float32)), _constant("shape", np.array([width, width], np.int64))],
    )
