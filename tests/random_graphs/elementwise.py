"""Row-wise blocks that work on single elements."""

import numpy as np
from onnx import TensorProto, helper

from tests.random_graphs import forms
from tests.random_graphs.blocks import rowwise
from tests.random_graphs.graph import BOOL, DOUBLE, FLOAT, HALF, INT, SMALL_INT, Graph, Value

_ACTIVATIONS = (
    ("Relu", {}),
    ("LeakyRelu", {"alpha": 0.1}),
    ("Elu", {}),
    ("Selu", {}),
    ("Celu", {"alpha": 0.7}),
    ("Sigmoid", {}),
    ("Tanh", {}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("HardSigmoid", {}),
    ("HardSwish", {}),
    ("Gelu", {}),
    ("Mish", {}),
    ("Erf", {}),
    ("ThresholdedRelu", {"alpha": 0.3}),
    ("Shrink", {"lambd": 0.2}),
    ("Atan", {}),
    ("Abs", {}),
    ("Neg", {}),
)


@rowwise(forms.floats)
def activation(graph: Graph, x: Value) -> Value:
    """Any of the usual functions."""
    operator, attributes = graph.pick(_ACTIVATIONS)
    return graph.op(operator, x, **attributes)


@rowwise(forms.floats)
def step(graph: Graph, x: Value) -> Value:
    """A step function, joined with its input."""
    return graph.op("Add", x, graph.op(graph.pick(["Floor", "Ceil", "Round", "Sign"]), x))


@rowwise(forms.floats)
def guarded_function(graph: Graph, x: Value) -> Value:
    """A function with a restricted domain or fast growth, with its argument clipped."""
    operator = graph.pick(["Exp", "Log", "Sqrt", "Reciprocal", "Tan", "Sinh", "Acos", "Atanh"])
    if operator in {"Log", "Sqrt", "Reciprocal"}:
        return graph.op(operator, graph.op("Add", graph.op("Abs", x), 0.5))
    low, high = (-0.9, 0.9) if operator in {"Tan", "Acos", "Atanh"} else (-8, 4)
    return graph.op(operator, graph.op("Clip", x, low, high))


@rowwise(forms.floats)
def wave(graph: Graph, x: Value) -> Value:
    """A periodic function of a bounded argument."""
    return graph.op(graph.pick(["Sin", "Cos"]), graph.op("Clip", x, -20, 20))


@rowwise(forms.floats)
def power(graph: Graph, x: Value) -> Value:
    """A power with a constant exponent."""
    bounded = graph.op("Clip", x, -100, 100)
    exponent = graph.pick([np.float32(2), np.float32(3), np.int64(2), np.float32(1)])
    return graph.op("Pow", bounded, exponent)


@rowwise(forms.rows)
def arithmetic_with_a_vector(graph: Graph, x: Value) -> Value:
    """Add, subtract, multiply or divide by one number per feature."""
    width = x.shape[-1] if isinstance(x.shape[-1], int) else 1
    vector = graph.weights(width, scale=1)
    operator = graph.pick(["Add", "Sub", "Mul", "Div"])
    if operator == "Div":
        vector = np.abs(vector) + np.float32(0.5)
    return graph.op(operator, x, vector)


@rowwise(forms.floats)
def arithmetic_with_a_number(graph: Graph, x: Value) -> Value:
    """Add, subtract, multiply or divide by a number, from either side."""
    operator = graph.pick(["Add", "Sub", "Mul", "Div"])
    number = graph.constant(np.float32(graph.pick([0.5, 2, 3, -1.5])) * np.ones(graph.pick([(), (1,)]), np.float32))
    return graph.op(operator, *([number, x] if operator != "Div" and graph.chance(0.4) else [x, number]), shape=x.shape)


@rowwise(forms.floats)
def clip(graph: Graph, x: Value) -> Value:
    """A lower bound, an upper bound, or both."""
    low, high = graph.pick([(-5, 5), (-1, None), (None, 20), (0, 6), (-100, 100)])
    return graph.op("Clip", x, low, high)


@rowwise(forms.floats)
def least_and_most(graph: Graph, x: Value) -> Value:
    """Min, Max, Sum and Mean of several tensors."""
    other = graph.op(graph.pick(["Tanh", "Neg", "Relu"]), x)
    return graph.op(graph.pick(["Min", "Max", "Sum", "Mean"]), x, other, graph.pick([0.1, -1]))


@rowwise(forms.floats)
def choose_by_comparison(graph: Graph, x: Value) -> Value:
    """Elements that pass a test, and others replaced."""
    operator = graph.pick(["Greater", "Less", "GreaterOrEqual", "LessOrEqual"])
    test = graph.op(operator, x, graph.pick([0, 0.5, -2]), kind=BOOL)
    otherwise = graph.pick([graph.argument(0.25), graph.op("Mul", x, 0.1)])
    return graph.op("Where", test, x, otherwise, kind=FLOAT)


@rowwise(forms.rows)
def slopes(graph: Graph, x: Value) -> Value:
    """PRelu with a slope for all, or for each feature."""
    width = x.shape[-1] if isinstance(x.shape[-1], int) else 1
    return graph.op("PRelu", x, graph.weights(graph.pick([1, width]), scale=1))


@rowwise(forms.floats)
def another_precision(graph: Graph, x: Value) -> Value:
    """Computed in another element type."""
    kind = graph.pick([DOUBLE, HALF, DOUBLE])
    inside = graph.cast(graph.op("Clip", x, -1000, 1000), kind)
    number = np.array(1.5, np.float64 if kind == DOUBLE else np.float16)
    result = graph.op(graph.pick(["Add", "Mul"]), inside, number)
    return graph.op("CastLike", result, x, kind=FLOAT) if graph.chance(0.3) else graph.cast(result, FLOAT)


@rowwise(forms.truths)
def logic(graph: Graph, x: Value) -> Value:
    """Combine truth values."""
    negated = graph.op("Not", x)
    combined = graph.op(graph.pick(["And", "Or", "Xor"]), x, graph.pick([negated, graph.argument(np.array(True))]))
    return graph.op(graph.pick(["Not", "Identity"]), combined)


@rowwise(forms.rows)
def tests_as_numbers(graph: Graph, x: Value) -> Value:
    """Number of thresholds that an element exceeds, added to it."""
    total = x
    for threshold in graph.pick([(0,), (-1, 1), (0.5, 5, 50)]):
        passed = graph.op("Greater", x, threshold, kind=BOOL)
        total = graph.op("Add", total, graph.cast(passed, FLOAT))
    return total


@rowwise(forms.whole_numbers)
def whole_number_arithmetic(graph: Graph, x: Value) -> Value:
    """Arithmetic on INT64 or INT32."""
    narrow = graph.chance(0.3)
    value, number = (graph.cast(x, SMALL_INT), np.int32(3)) if narrow else (x, np.int64(3))
    for _ in range(2):
        value = graph.op(graph.pick(["Add", "Sub", "Mul", "Div", "Mod", "Max", "Min"]), value, number)
    return graph.cast(value, INT) if narrow else value


@rowwise(forms.whole_numbers)
def bits(graph: Graph, x: Value) -> Value:
    """Bit operations on integers."""
    return graph.op(graph.pick(["BitwiseAnd", "BitwiseOr", "BitwiseXor"]), x, np.int64(graph.pick([1, 6, 255])))


@rowwise(forms.rows)
def replace_missing(graph: Graph, x: Value) -> Value:
    """Replace NaN."""
    missing = graph.op(graph.pick(["IsNaN", "IsInf"]), x, kind=BOOL)
    return graph.op("Where", missing, 0.5, x, kind=FLOAT, shape=x.shape)


@rowwise(forms.rows)
def fixed_quantization(graph: Graph, x: Value) -> Value:
    """Quantize by a constant scale, and back."""
    scale, zero = np.float32(graph.pick([0.05, 0.25])), graph.pick([np.uint8(128), np.int8(0)])
    kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
    scale, zero = graph.constant(np.asarray(scale)), graph.constant(np.asarray(zero))
    quantized = graph.op("QuantizeLinear", x, scale, zero, kind=kind)
    return graph.op("DequantizeLinear", quantized, scale, zero, kind=FLOAT)


@rowwise(forms.floats)
def left_over_from_training(graph: Graph, x: Value) -> Value:
    """Nodes that do nothing in inference."""
    if graph.chance(0.5):
        return graph.op("Dropout", graph.op("Identity", x))
    return graph.op("Identity", graph.op("Dropout", x, 0.5, graph.constant(np.array(False))))


@rowwise(forms.rows)
def bounded_product(graph: Graph, x: Value) -> Value:
    """An element times a function of itself: a gate."""
    gate = graph.op(graph.pick(["Sigmoid", "Tanh", "HardSigmoid"]), graph.op("Mul", x, graph.pick([1, 1.7])))
    return graph.op("Mul", x, gate)


@rowwise(forms.rows)
def function_of_the_model(graph: Graph, x: Value) -> Value:
    """A function that the model defines itself."""
    name = graph.fresh("Gate")
    nodes = [helper.make_node("Sigmoid", ["a"], ["gate"]), helper.make_node("Mul", ["a", "gate"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    graph.functions.append(helper.make_function("tests.local", name, ["a"], ["b"], nodes, opsets))
    return graph.op(name, x, domain="tests.local")


@rowwise(forms.rows)
def byte_arithmetic(graph: Graph, x: Value) -> Value:
    """Computed in UINT8, as for images."""
    narrow = graph.cast(graph.op("Clip", graph.op("Abs", x), 0, 255), TensorProto.UINT8)
    return graph.op("Mul", graph.cast(narrow, FLOAT), 1 / 255)
