"""Cross-row blocks by arithmetic: sums, norms, products and counts over the rows."""

import numpy as np
from onnx import TensorProto, helper

from tests.random_graphs import forms
from tests.random_graphs.blocks import crossrow
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, Graph, Value
from tests.random_graphs.layers import MICROSOFT

_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceLogSumExp")


@crossrow(forms.rows)
def reduce_rows(graph: Graph, x: Value) -> Value:
    """Differences of a row to the mean, sum, maximum, minimum or norm of all rows."""
    reduced = graph.op(graph.pick(_REDUCTIONS), x, [0], shape=(1, *x.shape[1:]))
    if graph.chance(0.5):
        return graph.op("Sub", x, reduced)
    return graph.op("Div", x, graph.op("Add", graph.op("Abs", reduced), 0.1))


@crossrow(forms.rows)
def reduce_everything(graph: Graph, x: Value) -> Value:
    """The same with one number over all rows and features."""
    reduced = graph.op(graph.pick(_REDUCTIONS), x, shape=(), keepdims=0)
    return graph.op(graph.pick(["Sub", "Add"]), x, reduced)


@crossrow(forms.rank2)
def product_of_rows(graph: Graph, x: Value) -> Value:
    """A product over the rows."""
    bounded = graph.op("Clip", x, 0.5, 1.5)
    return graph.op("Mul", bounded, graph.op("ReduceProd", bounded, [0], shape=(1, x.shape[1])))


@crossrow(forms.rank2)
def softmax_over_rows(graph: Graph, x: Value) -> Value:
    """A Softmax over the rows."""
    return graph.op(graph.pick(["Softmax", "LogSoftmax", "Hardmax"]), x, axis=graph.pick([0, -2]))


@crossrow(forms.rows)
def cumulative_sum_of_rows(graph: Graph, x: Value) -> Value:
    """Cumulative sums over the rows."""
    axis = graph.constant(np.array(graph.pick([0, -x.rank]), np.int64))
    return graph.op("CumSum", x, axis, reverse=graph.pick([0, 1]), exclusive=graph.pick([0, 1]))


@crossrow(forms.rank2)
def norm_over_rows(graph: Graph, x: Value) -> Value:
    """Columns normalized to length 1."""
    return graph.op("LpNormalization", graph.op("Add", x, 0.5), axis=0, p=graph.pick([1, 2]))


@crossrow(forms.rank2)
def statistics_of_the_batch(graph: Graph, x: Value) -> Value:
    """Batch normalization in training mode, built from plain nodes."""
    mean = graph.op("ReduceMean", x, [0], shape=(1, x.shape[1]))
    centred = graph.op("Sub", x, mean)
    variance = graph.op("ReduceMean", graph.op("Mul", centred, centred), [0], shape=(1, x.shape[1]))
    return graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", variance, 1e-3)))


@crossrow(forms.images)
def norm_of_all_pictures(graph: Graph, x: Value) -> Value:
    """MeanVarianceNormalization with its default axes: rows, height and width."""
    return graph.op("MeanVarianceNormalization", graph.op("Clip", x, -1000, 1000))


@crossrow(forms.rank2)
def rows_as_pixels(graph: Graph, x: Value) -> Value:
    """Norms or pools for images, with the rows in place of pixels."""
    width = x.shape[1]
    picture = forms.unsqueeze(graph, graph.transpose(x, 1, 0), 0)
    if graph.chance(0.5):
        ones = np.ones(width, np.float32)
        normal = graph.op("InstanceNormalization", picture, ones, np.zeros(width, np.float32), epsilon=1e-3)
        return graph.transpose(graph.op("Squeeze", normal, [0], shape=(width, BATCH)), 1, 0)
    operator = graph.pick(["GlobalAveragePool", "GlobalMaxPool"])
    pooled = graph.op("Squeeze", graph.op(operator, picture, shape=(1, width, 1)), [2], shape=(1, width))
    return graph.op("Add", x, pooled)


@crossrow(forms.rank2)
def windows_of_rows(graph: Graph, x: Value) -> Value:
    """Convolution or pooling in windows over several rows."""
    width = x.shape[1]
    picture = forms.unsqueeze(graph, graph.transpose(x, 1, 0), 0)
    if graph.chance(0.5):
        weights = graph.weights(width, width, 3, scale=0.4)
        result = graph.op("Conv", picture, weights, shape=(1, width, BATCH), pads=[1, 1])
    else:
        operator = graph.pick(["MaxPool", "AveragePool"])
        result = graph.op(operator, picture, shape=(1, width, BATCH), kernel_shape=[3], pads=[1, 1])
    return graph.transpose(graph.op("Squeeze", result, [0], shape=(width, BATCH)), 1, 0)


@crossrow(forms.rank2)
def dynamic_quantization(graph: Graph, x: Value) -> Value:
    """Quantization by the range of all rows."""
    results = [(TensorProto.UINT8, x.shape), (FLOAT, ()), (TensorProto.UINT8, ())]
    quantized, scale, zero = graph.ops("DynamicQuantizeLinear", [x], results)
    if graph.chance(0.5):
        return graph.op("DequantizeLinear", quantized, scale, zero, kind=FLOAT)
    weights = graph.numpy.integers(-20, 20, (x.shape[1], 4)).astype(np.int8)
    product = graph.op("MatMulInteger", quantized, weights, zero, kind=TensorProto.INT32, shape=(BATCH, 4))
    return graph.op("Mul", graph.cast(product, FLOAT), scale)


@crossrow(forms.rank2)
def dynamically_quantized_layer(graph: Graph, x: Value) -> Value:
    """The same, as fused by ONNX Runtime's optimizer."""
    weights = graph.numpy.integers(-20, 20, (x.shape[1], 4)).astype(np.int8)
    zero = graph.constant(np.array(0, np.int8))
    return graph.op("DynamicQuantizeMatMul", x, weights, 0.02, zero, shape=(BATCH, 4), domain=MICROSOFT)


@crossrow(forms.rank2)
def share_of_all(graph: Graph, x: Value) -> Value:
    """Each row's share of the total."""
    positive = graph.op("Add", graph.op("Abs", x), 0.1)
    return graph.op("Div", positive, graph.op("ReduceSum", positive, shape=(), keepdims=0))


@crossrow(forms.rank2)
def count_of_rows_that_pass(graph: Graph, x: Value) -> Value:
    """Number of rows that pass a test, added to all."""
    first = graph.slice(x, 0, 1, 1, size=1)
    passed = graph.cast(graph.op("Greater", first, graph.pick([0, 1]), kind=BOOL), FLOAT)
    return graph.op("Add", x, graph.op("ReduceSum", passed, [0], shape=(1, 1)))


@crossrow(forms.rows)
def number_of_rows(graph: Graph, x: Value) -> Value:
    """The number of rows by Shape, as a divisor, a summand or a factor."""
    count = graph.cast(graph.size(x, 0, scalar=True), FLOAT)
    if graph.chance(0.3):
        count = graph.cast(graph.op("Size", x, kind=INT, shape=()), FLOAT)
    return graph.op(graph.pick(["Div", "Mul", "Add"]), graph.op("Add", x, 0.5), count)


@crossrow(forms.rank2)
def number_of_rows_by_ones(graph: Graph, x: Value) -> Value:
    """The number of rows as a sum of ones."""
    ones = graph.op("ConstantOfShape", graph.op("Shape", x, kind=INT, shape=(2,)), kind=FLOAT, shape=x.shape)
    count = graph.op("ReduceSum", graph.op("Add", ones, 1), [0], shape=(1, x.shape[1]))
    return graph.op("Add", x, count)


@crossrow(forms.rank2)
def gram_matrix(graph: Graph, x: Value) -> Value:
    """The products of a row with all others."""
    gram = graph.op("MatMul", graph.op("Clip", x, -20, 20), graph.transpose(x, 1, 0), shape=(BATCH, OPEN))
    return graph.op(graph.pick(["ReduceMax", "ReduceSum"]), gram, [1], shape=(BATCH, 1))


@crossrow(forms.rank2)
def attention_over_rows(graph: Graph, x: Value) -> Value:
    """Attention between rows."""
    query = graph.op("MatMul", x, graph.weights(x.shape[1], x.shape[1]))
    scores = graph.op("MatMul", query, graph.transpose(x, 1, 0), shape=(BATCH, OPEN))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), x, shape=x.shape)


@crossrow(forms.steps)
def attention_of_steps_over_rows(graph: Graph, x: Value) -> Value:
    """Attention with rows and steps swapped, a common mistake."""
    turned = graph.transpose(x, 1, 0, 2)
    scores = graph.op("MatMul", turned, graph.transpose(turned, 0, 2, 1), shape=(x.shape[1], BATCH, OPEN))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), turned, shape=turned.shape)
    return graph.transpose(mixed, 1, 0, 2)


@crossrow(forms.rank2)
def products_of_columns(graph: Graph, x: Value) -> Value:
    """Products of columns, which are sums over the rows."""
    width = x.shape[1]
    bounded = graph.op("Clip", x, -20, 20)
    if graph.chance(0.5):
        gram = graph.op("Gemm", bounded, bounded, shape=(width, width), transA=1)
    else:
        gram = graph.op("MatMul", graph.transpose(bounded, 1, 0), bounded, shape=(width, width))
    return graph.op("MatMul", x, gram)


@crossrow(forms.rank2)
def einsum_over_rows(graph: Graph, x: Value) -> Value:
    """An Einsum that sums over the rows."""
    bounded = graph.op("Clip", x, -20, 20)
    if graph.chance(0.5):
        return graph.op("Add", x, graph.op("Einsum", bounded, shape=(x.shape[1],), equation="bd->d"))
    gram = graph.op("Einsum", bounded, bounded, shape=(x.shape[1],) * 2, equation="bi,bj->ij")
    return graph.op("Einsum", x, gram, shape=x.shape, equation="bi,ij->bj")


@crossrow(forms.rank2)
def most_similar_row(graph: Graph, x: Value) -> Value:
    """The row with the largest sum, added to each."""
    sums = graph.op("ReduceSum", x, [1], shape=(BATCH,), keepdims=0)
    place = graph.op("ArgMax", sums, kind=INT, shape=(1,), axis=0)
    return graph.op("Add", graph.op("Neg", x), graph.op("Gather", x, place, shape=(1, x.shape[1]), axis=0))


@crossrow(forms.rank2)
def function_with_mean(graph: Graph, x: Value) -> Value:
    """A function of the model that subtracts the mean of all rows."""
    name = graph.fresh("Centre")
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("ReduceMean", ["a", "axes"], ["mean"]),
        helper.make_node("Sub", ["a", "mean"], ["b"]),
    ]
    opsets = [helper.make_opsetid("", 20)]
    graph.functions.append(helper.make_function("tests.local", name, ["a"], ["b"], nodes, opsets))
    return graph.op(name, x, domain="tests.local")


@crossrow(forms.rank2)
def normal_range(graph: Graph, x: Value) -> Value:
    """Scaled to the range of all rows."""
    least, most = (graph.op(operator, x, [0], shape=(1, x.shape[1])) for operator in ("ReduceMin", "ReduceMax"))
    span = graph.op("Add", graph.op("Sub", most, least), 0.01)
    return graph.op("Div", graph.op("Sub", x, least), span)


@crossrow(forms.images)
def channels_over_rows(graph: Graph, x: Value) -> Value:
    """Local response normalization or depth to space with the rows as channels."""
    bounded = graph.op("Clip", x, -50, 50)
    turned = graph.transpose(bounded, 1, 0, 2, 3)
    return graph.transpose(graph.op("LRN", turned, size=3, alpha=2.0), 1, 0, 2, 3)


@crossrow(forms.rank2)
def layer_norm_over_all(graph: Graph, x: Value) -> Value:
    """LayerNormalization from the first dimension on, with the rows as one list."""
    flat = graph.reshape(graph.transpose(x, 1, 0), [x.shape[1], 1, -1], (x.shape[1], 1, OPEN))
    normal = graph.op("MeanVarianceNormalization", flat, axes=[2])
    return graph.transpose(graph.op("Squeeze", normal, [1], shape=(x.shape[1], BATCH)), 1, 0)
