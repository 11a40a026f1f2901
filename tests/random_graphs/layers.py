"""Row-wise blocks with weights: dense layers, convolutions, attention within a row, recurrence over its steps."""

import numpy as np
from onnx import TensorProto

from tests.random_graphs import forms
from tests.random_graphs.blocks import rowwise
from tests.random_graphs.graph import BATCH, FLOAT, INT, OPEN, Graph, Value

MICROSOFT, CLASSIC = "com.microsoft", "ai.onnx.ml"


@rowwise(forms.rank2)
def dense(graph: Graph, x: Value) -> Value:
    """MatMul and Add."""
    width = graph.pick([1, 4, 8])
    product = graph.op("MatMul", x, graph.weights(x.shape[1], width), shape=(BATCH, width))
    return graph.op("Add", product, graph.weights(width, scale=1))


@rowwise(forms.rank2)
def gemm(graph: Graph, x: Value) -> Value:
    """Gemm with its attributes."""
    width, turned = graph.pick([2, 5]), graph.pick([0, 1])
    weights = graph.weights(x.shape[1], width)
    bias = graph.pick([graph.weights(width, scale=1), graph.weights(1, width, scale=1), None])
    return graph.op(
        "Gemm",
        x,
        weights.T.copy() if turned else weights,
        bias,
        shape=(BATCH, width),
        transB=turned,
        alpha=0.5,
        beta=2.0,
    )


@rowwise(forms.rank3)
def dense_for_each_step(graph: Graph, x: Value) -> Value:
    """A weight matrix for the last dimension of three."""
    width = graph.pick([3, 6])
    return graph.op("MatMul", x, graph.weights(x.shape[2], width), shape=(BATCH, x.shape[1], width))


@rowwise(forms.steps)
def dense_over_steps(graph: Graph, x: Value) -> Value:
    """Weights from the left, which mix the steps of a row."""
    return graph.op("MatMul", graph.weights(3, x.shape[1]), x, shape=(BATCH, 3, x.shape[2]))


@rowwise(forms.rank2)
def dense_on_transposed(graph: Graph, x: Value) -> Value:
    """Weights from the left of the transposed rows, transposed back."""
    turned = graph.transpose(x, 1, 0)
    product = graph.op("MatMul", graph.weights(4, x.shape[1]), turned, shape=(4, BATCH))
    return graph.transpose(product, 1, 0)


@rowwise(forms.rank2)
def fused_dense(graph: Graph, x: Value) -> Value:
    """A dense layer as fused by ONNX Runtime's optimizer."""
    weights = graph.weights(4, x.shape[1])
    return graph.op("FusedMatMul", x, weights, shape=(BATCH, 4), domain=MICROSOFT, transB=1, alpha=0.5)


@rowwise(forms.rank3)
def skip_layer_norm(graph: Graph, x: Value) -> Value:
    """A residual with its norm as fused by ONNX Runtime's optimizer."""
    fixed = forms.steps(graph, x)
    gamma = graph.weights(fixed.shape[2], scale=1)
    other = graph.op("Tanh", fixed)
    return graph.op("SkipLayerNormalization", fixed, other, gamma, domain=MICROSOFT, epsilon=1e-3)


@rowwise(forms.rank2)
def gated_layer(graph: Graph, x: Value) -> Value:
    """Two dense layers, one the gate of the other."""
    inner = [graph.op("MatMul", x, graph.weights(x.shape[1], 6), shape=(BATCH, 6)) for _ in range(2)]
    gate = graph.op("Mul", inner[0], graph.op("Sigmoid", inner[1]))
    return graph.op("MatMul", gate, graph.weights(6, 4), shape=(BATCH, 4))


@rowwise(forms.some_features)
def residual_layer(graph: Graph, x: Value) -> Value:
    """A dense layer added to its input."""
    width = x.shape[1]
    inner = graph.op("Relu", graph.op("MatMul", x, graph.weights(width, width)))
    return graph.op("Add", x, graph.op("MatMul", inner, graph.weights(width, width)))


@rowwise(forms.steps)
def einsum(graph: Graph, x: Value) -> Value:
    """A product by an Einsum that keeps the rows."""
    _, steps, width = x.shape
    equation, weights, shape = graph.pick(
        [
            ("bsd,de->bse", graph.weights(width, 3), (BATCH, steps, 3)),
            ("bsd,sd->b", graph.weights(steps, width), (BATCH,)),
            ("bsd,s->bd", graph.weights(steps, scale=1), (BATCH, width)),
        ]
    )
    if graph.chance(0.3):
        return graph.op("Einsum", x, x, shape=(BATCH, steps, steps), equation="bsd,btd->bst")
    return graph.op("Einsum", x, weights, shape=shape, equation=equation)


@rowwise(forms.rank3)
def convolution(graph: Graph, x: Value) -> Value:
    """Conv over the steps."""
    turned = graph.transpose(x, 0, 2, 1)
    weights = graph.weights(4, x.shape[2], 3, scale=0.4)
    result = graph.op("Conv", turned, weights, shape=(BATCH, 4, x.shape[1]), pads=[1, 1])
    return graph.transpose(result, 0, 2, 1)


@rowwise(forms.images)
def picture_convolution(graph: Graph, x: Value) -> Value:
    """Conv over height and width: plain, depthwise, or dilated."""
    channels, size = x.shape[1:3]
    shape = (BATCH, channels, size, size)
    way = graph.pick(["plain", "depthwise", "dilated"])
    if way == "depthwise":
        return graph.op("Conv", x, graph.weights(channels, 1, 3, 3, scale=0.3), pads=[1] * 4, group=channels)
    weights = graph.weights(channels, channels, 3, 3, scale=0.3)
    if way == "dilated":
        return graph.op(
            "Conv", x, weights, graph.weights(channels, scale=1), shape=shape, pads=[2] * 4, dilations=[2, 2]
        )
    return graph.op("Conv", x, weights, shape=shape, auto_pad="SAME_UPPER")


@rowwise(forms.images)
def transposed_convolution(graph: Graph, x: Value) -> Value:
    """ConvTranspose, which enlarges images."""
    _, channels, height, width = x.shape
    weights = graph.weights(channels, 2, 2, 2, scale=0.5)
    return graph.op("ConvTranspose", x, weights, shape=(BATCH, 2, height * 2, width * 2), strides=[2, 2])


@rowwise(forms.images)
def pooling(graph: Graph, x: Value) -> Value:
    """The maximum, mean or norm of windows, or of the whole image."""
    _, channels, height, width = x.shape
    if graph.chance(0.4):
        operator = graph.pick(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
        return graph.op(operator, x, shape=(BATCH, channels, 1, 1))
    shape = (BATCH, channels, height - 1, width - 1)
    return graph.op(graph.pick(["MaxPool", "AveragePool", "LpPool"]), x, shape=shape, kernel_shape=[2, 2])


@rowwise(forms.rank3)
def attention(graph: Graph, x: Value) -> Value:
    """Attention between the steps of a row."""
    width = x.shape[2]
    queries, keys, values = (graph.op("MatMul", x, graph.weights(width, width)) for _ in range(3))
    scores = graph.op("MatMul", queries, graph.transpose(keys, 0, 2, 1), shape=(BATCH, x.shape[1], x.shape[1]))
    scaled = graph.op("Softmax", graph.op("Div", scores, float(np.sqrt(width))), axis=-1)
    return graph.op("MatMul", scaled, values, shape=x.shape)


@rowwise(forms.rank3)
def masked_attention(graph: Graph, x: Value) -> Value:
    """Attention that masks steps with a small first feature."""
    first = graph.op("Gather", x, np.int64(0), shape=(BATCH, x.shape[1]), axis=2)
    masked = graph.op("Less", first, -0.5, kind=TensorProto.BOOL)
    penalty = graph.op("Mul", graph.cast(forms.unsqueeze(graph, masked, 1), FLOAT), -10000.0)
    scores = graph.op("MatMul", x, graph.transpose(x, 0, 2, 1), shape=(BATCH, x.shape[1], x.shape[1]))
    weights = graph.op("Softmax", graph.op("Add", graph.op("Clip", scores, -50, 50), penalty), axis=-1)
    return graph.op("MatMul", weights, x, shape=x.shape)


@rowwise(forms.rank3)
def attention_with_heads(graph: Graph, x: Value) -> Value:
    """Attention in two heads, with shapes computed from the input's, as in exports."""
    four = graph.op("MatMul", x, graph.weights(x.shape[2], 4), shape=(BATCH, x.shape[1], 4))
    sizes = graph.sizes(graph.size(x, 0), graph.size(x, 1), 2, 2)
    heads = graph.op("Reshape", four, sizes, shape=(BATCH, x.shape[1], 2, 2))
    heads = graph.transpose(heads, 0, 2, 1, 3)
    scores = graph.op("MatMul", heads, graph.transpose(heads, 0, 1, 3, 2), shape=(BATCH, 2, x.shape[1], x.shape[1]))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), heads, shape=heads.shape)
    return graph.reshape(graph.transpose(mixed, 0, 2, 1, 3), [0, 0, 4], (BATCH, x.shape[1], 4))


@rowwise(forms.rank3)
def attention_with_merged_heads(graph: Graph, x: Value) -> Value:
    """Attention with rows and heads merged in one dimension, and separated again."""
    four = graph.op("MatMul", x, graph.weights(x.shape[2], 4), shape=(BATCH, x.shape[1], 4))
    heads = graph.transpose(graph.reshape(four, [0, 0, 2, 2], (BATCH, x.shape[1], 2, 2)), 0, 2, 1, 3)
    length, batch = graph.size(x, 1), graph.size(x, 0)
    merged = graph.op("Reshape", heads, graph.sizes(-1, length, 2), shape=(OPEN, x.shape[1], 2))
    scores = graph.op("MatMul", merged, graph.transpose(merged, 0, 2, 1), shape=(OPEN, x.shape[1], x.shape[1]))
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), merged, shape=merged.shape)
    apart = graph.op("Reshape", mixed, graph.sizes(batch, 2, length, 2), shape=(BATCH, 2, x.shape[1], 2))
    return graph.reshape(graph.transpose(apart, 0, 2, 1, 3), [0, 0, 4], (BATCH, x.shape[1], 4))


@rowwise(forms.time_major)
def recurrence(graph: Graph, x: Value) -> Value:
    """RNN, GRU or LSTM over the steps: all hidden states, or the last one."""
    gates, operator = graph.pick([(1, "RNN"), (3, "GRU"), (4, "LSTM")])
    directions, hidden = graph.pick([1, 2]), 3
    weights = graph.weights(directions, gates * hidden, x.shape[2], scale=0.5)
    again = graph.weights(directions, gates * hidden, hidden, scale=0.5)
    results = [(FLOAT, (x.shape[0], directions, BATCH, hidden)), (FLOAT, (directions, BATCH, hidden))]
    way = "forward" if directions == 1 else "bidirectional"
    start = None
    if graph.chance(0.5):
        sizes = graph.sizes(directions, graph.size(x, 1), hidden)
        start = graph.op("Expand", graph.weights(directions, 1, hidden), sizes, shape=(directions, BATCH, hidden))
    arguments = [x, weights, again, None, None, start]
    states, last = graph.ops(operator, arguments, results, hidden_size=hidden, direction=way)
    if graph.chance(0.5):
        return graph.transpose(last, 1, 0, 2)
    if directions == 1:
        return graph.op("Squeeze", states, [1], shape=(x.shape[0], BATCH, hidden))
    return graph.transpose(states, 2, 0, 1, 3)


@rowwise(forms.indices)
def embedding(graph: Graph, x: Value) -> Value:
    """A table looked up by Gather."""
    return graph.op("Gather", graph.weights(6, 4, scale=1), x, shape=(*x.shape, 4), kind=FLOAT)


@rowwise(forms.indices)
def embedding_with_positions(graph: Graph, x: Value) -> Value:
    """An embedding of tokens plus one of positions."""
    found = graph.op("Gather", graph.weights(6, 4, scale=1), x, shape=(*x.shape, 4), kind=FLOAT)
    count = graph.size(x, 1, scalar=True)
    places = graph.op("Range", np.int64(0), count, np.int64(1), kind=INT, shape=(x.shape[1],))
    table = graph.weights(512, 4, scale=1)
    bounded = graph.op("Min", places, np.int64(511))
    return graph.op("Add", found, graph.op("Gather", table, bounded, shape=(x.shape[1], 4), kind=FLOAT))


@rowwise(forms.indices)
def onehot(graph: Graph, x: Value) -> Value:
    """OneHot and a dense layer."""
    depth, values = graph.constant(np.array(6, np.int64)), np.array([0, 1], np.float32)
    marked = graph.op("OneHot", x, depth, values, kind=FLOAT, shape=(*x.shape, 6), axis=-1)
    return graph.op("MatMul", marked, graph.weights(6, 3, scale=1), shape=(*x.shape, 3))


@rowwise(forms.rank2)
def whole_number_product(graph: Graph, x: Value) -> Value:
    """MatMulInteger of values quantized by a constant scale."""
    zero = graph.constant(np.array(128, np.uint8))
    quantized = graph.op("QuantizeLinear", x, 0.1, zero, kind=TensorProto.UINT8)
    weights = graph.numpy.integers(-20, 20, (x.shape[1], 4)).astype(np.int8)
    product = graph.op("MatMulInteger", quantized, weights, zero, kind=TensorProto.INT32, shape=(BATCH, 4))
    return graph.op("Mul", graph.cast(product, FLOAT), 0.01)


@rowwise(forms.images)
def sample_at_places(graph: Graph, x: Value) -> Value:
    """GridSample at constant positions."""
    grid = graph.constant(np.clip(graph.weights(1, 2, 2, 2, scale=0.5), -1, 1))
    sizes = graph.sizes(graph.size(x, 0), 2, 2, 2)
    places = graph.op("Expand", grid, sizes, shape=(BATCH, 2, 2, 2))
    return graph.op("GridSample", x, places, shape=(BATCH, x.shape[1], 2, 2))
