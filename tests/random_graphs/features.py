"""Row-wise blocks that work along the features of a row: sums, norms, sorting, splitting and joining."""

import numpy as np

from tests.random_graphs import forms
from tests.random_graphs.blocks import rowwise
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, Graph, Value


@rowwise(forms.rows)
def softmax(graph: Graph, x: Value) -> Value:
    """A Softmax over the last dimension, with a positive or negative axis."""
    operator = graph.pick(["Softmax", "LogSoftmax", "Softmax"])
    return graph.op(operator, x, axis=graph.pick([-1, x.rank - 1]))


@rowwise(forms.rows)
def hardmax(graph: Graph, x: Value) -> Value:
    """One-hot of the maximum of a row."""
    return graph.op("Add", x, graph.op("Hardmax", x, axis=-1))


@rowwise(forms.steps)
def softmax_over_steps(graph: Graph, x: Value) -> Value:
    """A Softmax over the middle dimension."""
    return graph.op("Mul", x, graph.op("Softmax", x, axis=1))


@rowwise(forms.rank3)
def layer_norm(graph: Graph, x: Value) -> Value:
    """LayerNormalization over the features."""
    width = x.shape[2]
    scale, shift = graph.weights(width, scale=1), graph.weights(width, scale=1)
    return graph.op("LayerNormalization", x, scale, graph.pick([shift, None]), axis=-1, epsilon=1e-3)


@rowwise(forms.some_features)
def layer_norm_by_hand(graph: Graph, x: Value) -> Value:
    """The same from ReduceMean, Sub, Pow, Sqrt and Div."""
    mean = graph.op("ReduceMean", x, [graph.pick([1, -1])], shape=(BATCH, 1))
    centred = graph.op("Sub", x, mean)
    variance = graph.op("ReduceMean", graph.op("Pow", centred, 2.0), [-1], shape=(BATCH, 1))
    return graph.op("Div", centred, graph.op("Sqrt", graph.op("Add", variance, 1e-3)))


@rowwise(forms.images)
def instance_norm(graph: Graph, x: Value) -> Value:
    """InstanceNormalization, with statistics of one channel of one row."""
    channels = x.shape[1]
    ones = np.ones(channels, np.float32)
    return graph.op("InstanceNormalization", x, ones, graph.weights(channels, scale=1), epsilon=1e-3)


@rowwise(forms.images)
def batch_norm_of_training(graph: Graph, x: Value) -> Value:
    """BatchNormalization with constant statistics."""
    channels = x.shape[1]
    mean, variance = graph.weights(channels, scale=1), np.abs(graph.weights(channels, scale=1)) + np.float32(0.5)
    return graph.op("BatchNormalization", x, np.ones(channels, np.float32), mean, mean, variance)


@rowwise(forms.some_features)
def lp_norm(graph: Graph, x: Value) -> Value:
    """Rows normalized to length 1."""
    shifted = graph.op("Add", x, 0.5)
    return graph.op("LpNormalization", shifted, axis=graph.pick([1, -1]), p=graph.pick([1, 2]))


@rowwise(forms.images)
def norm_of_each_picture(graph: Graph, x: Value) -> Value:
    """MeanVarianceNormalization over all dimensions except the rows, or local response normalization."""
    if graph.chance(0.4):
        return graph.op("LRN", x, size=3, alpha=0.1)
    return graph.op("MeanVarianceNormalization", graph.op("Clip", x, -1000, 1000), axes=[1, 2, 3])


@rowwise(forms.rank3)
def reduce_steps(graph: Graph, x: Value) -> Value:
    """Sums and similar over the middle dimension."""
    operator = graph.pick(
        ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceLogSumExp"]
    )
    if graph.chance(0.5):
        return graph.op(operator, x, [graph.pick([1, -2])], shape=(BATCH, x.shape[2]), keepdims=0)
    return graph.op(operator, x, [1], shape=(BATCH, 1, x.shape[2]), keepdims=1)


@rowwise(forms.rows)
def subtract_reduced(graph: Graph, x: Value) -> Value:
    """Differences of a row to the mean, minimum or maximum of its features."""
    operator = graph.pick(["ReduceMean", "ReduceMin", "ReduceMax"])
    axes = list(range(1, x.rank)) if graph.chance(0.5) else list(range(-x.rank + 1, 0))
    reduced = graph.op(operator, x, axes, shape=(BATCH, *[1] * (x.rank - 1)))
    return graph.op("Sub", x, reduced)


@rowwise(forms.rank2)
def reduce_nothing(graph: Graph, x: Value) -> Value:
    """A sum over no axes, which changes nothing."""
    return graph.op("ReduceSum", x, graph.constant(np.array([], np.int64)), noop_with_empty_axes=1)


@rowwise(forms.steps)
def products(graph: Graph, x: Value) -> Value:
    """A product or a sum of squares over the last dimension."""
    bounded = graph.op("Clip", x, -3, 3)
    return graph.op(graph.pick(["ReduceProd", "ReduceSumSquare"]), bounded, [-1], shape=(BATCH, x.shape[1]), keepdims=0)


@rowwise(forms.rank3)
def argmax(graph: Graph, x: Value) -> Value:
    """The index of the maximum or minimum of a row."""
    operator = graph.pick(["ArgMax", "ArgMin"])
    return graph.op(operator, x, kind=INT, shape=(BATCH, x.shape[1]), axis=2, keepdims=0)


@rowwise(forms.some_features)
def topk(graph: Graph, x: Value) -> Value:
    """The largest or smallest elements of a row, or their indices."""
    count = graph.pick([1, 2, x.shape[1]])
    results = [(FLOAT, (BATCH, count)), (INT, (BATCH, count))]
    values, places = graph.ops("TopK", [x, [count]], results, axis=-1, largest=graph.pick([0, 1]))
    return graph.pick([values, places])


@rowwise(forms.rank3)
def cumulative_sum(graph: Graph, x: Value) -> Value:
    """Cumulative sums over the steps or the features."""
    axis = graph.constant(np.array(graph.pick([1, 2, -1]), np.int64))
    return graph.op("CumSum", x, axis, exclusive=graph.pick([0, 1]), reverse=graph.pick([0, 1]))


@rowwise(forms.some_features)
def sort_and_back(graph: Graph, x: Value) -> Value:
    """Sort a row, change it, and restore its order."""
    width = x.shape[1]
    results = [(FLOAT, x.shape), (INT, x.shape)]
    values, places = graph.ops("TopK", [x, [width]], results, axis=1)
    ranks = graph.op("Mul", values, np.linspace(1, 2, width, dtype=np.float32))
    return graph.op("ScatterElements", graph.op("Mul", x, 0.0), places, ranks, axis=1)


@rowwise(forms.rank2)
def pad_features(graph: Graph, x: Value) -> Value:
    """Additional features, constant or copied."""
    mode = graph.pick(["constant", "edge", "reflect"]) if x.shape[1] > 1 else "constant"
    shape = (BATCH, x.shape[1] + 2)
    fill = 0.5 if mode == "constant" else None
    if graph.chance(0.5):
        return graph.op("Pad", x, [0, 1, 0, 1], fill, shape=shape, mode=mode)
    return graph.op("Pad", x, [1, 1], fill, [1], shape=shape, mode=mode)


@rowwise(forms.rank2)
def tile_features(graph: Graph, x: Value) -> Value:
    """Repeated features."""
    return graph.op("Tile", x, [1, 2], shape=(BATCH, 2 * x.shape[1]))


@rowwise(forms.some_features)
def slice_features(graph: Graph, x: Value) -> Value:
    """Some of the features, with positive or negative indices."""
    start, stop = graph.pick([(0, -1), (1, 1000), (-1, 1000)])
    count = len(range(x.shape[1])[start:stop])
    return graph.slice(x, start, stop, graph.pick([1, -1]) if x.rank == 2 else 1, size=count)


@rowwise(forms.rank2)
def reverse_features(graph: Graph, x: Value) -> Value:
    """Reversed features."""
    return graph.slice(x, -1, -(2**40), 1, step=-1, size=x.shape[1])


@rowwise(forms.some_features)
def split_and_join(graph: Graph, x: Value) -> Value:
    """Split the features, change one part, and join them in reverse order."""
    sizes = [1, x.shape[1] - 1]
    results = [(FLOAT, (BATCH, size)) for size in sizes]
    left, right = graph.ops("Split", [x, sizes], results, axis=1)
    return graph.op("Concat", graph.op("Tanh", right), left, shape=x.shape, axis=graph.pick([1, -1]))


@rowwise(forms.some_features)
def pieces_of_a_sequence(graph: Graph, x: Value) -> Value:
    """The features as a sequence of tensors, joined again."""
    parts = graph.op("SplitToSequence", x, shape=(OPEN,), axis=1, keepdims=1)
    last = graph.op("SequenceAt", parts, np.int64(-1), shape=(BATCH, 1))
    together = graph.op("ConcatFromSequence", parts, shape=x.shape, axis=1)
    return graph.op("Sub", together, last)


@rowwise(forms.rank2)
def join_with_function(graph: Graph, x: Value) -> Value:
    """Features joined with a function of them."""
    return graph.op("Concat", x, graph.op("Sigmoid", x), shape=(BATCH, 2 * x.shape[1]), axis=1)


@rowwise(forms.steps)
def turn_features(graph: Graph, x: Value) -> Value:
    """Steps and features swapped."""
    return graph.transpose(x, 0, 2, 1)


@rowwise(forms.images)
def space_and_depth(graph: Graph, x: Value) -> Value:
    """Pixels to channels, or channels to pixels."""
    _, channels, height, width = x.shape
    if channels % 4 == 0 and graph.chance(0.6):
        shape = (BATCH, channels // 4, height * 2, width * 2)
        return graph.op("DepthToSpace", x, shape=shape, blocksize=2, mode=graph.pick(["DCR", "CRD"]))
    if height % 2:
        return graph.transpose(x, 0, 2, 3, 1)
    return graph.op("SpaceToDepth", x, shape=(BATCH, channels * 4, height // 2, width // 2), blocksize=2)


@rowwise(forms.images)
def resize(graph: Graph, x: Value) -> Value:
    """Images resized."""
    _, channels, height, width = x.shape
    mode = graph.pick(["nearest", "linear"])
    if graph.chance(0.5):
        scales = np.array([1, 1, 2, 2], np.float32)
        return graph.op("Resize", x, None, scales, shape=(BATCH, channels, height * 2, width * 2), mode=mode)
    batch = graph.size(x, 0)
    sizes = graph.sizes(batch, channels, 3, 3)
    return graph.op("Resize", x, None, None, sizes, shape=(BATCH, channels, 3, 3), mode=mode)


@rowwise(forms.rows)
def unsqueeze_and_squeeze(graph: Graph, x: Value) -> Value:
    """A temporary dimension of size 1, even before the rows."""
    axis = graph.pick([0, 1, x.rank])
    wide = forms.unsqueeze(graph, x, axis)
    return graph.op("Squeeze", graph.op("Tanh", wide), [axis], shape=x.shape)


@rowwise(forms.steps)
def triangle(graph: Graph, x: Value) -> Value:
    """The upper or lower half of each row's matrix."""
    return graph.op("Trilu", x, graph.constant(np.array(graph.pick([0, 1, -1]), np.int64)), upper=graph.pick([0, 1]))


@rowwise(forms.steps)
def reverse_steps(graph: Graph, x: Value) -> Value:
    """A constant number of first steps of each row reversed."""
    lengths = graph.op("Expand", np.array([2], np.int64), graph.size(x, 0), kind=INT, shape=(BATCH,))
    return graph.op("ReverseSequence", x, lengths, batch_axis=0, time_axis=1)


@rowwise(forms.some_features)
def compress_features(graph: Graph, x: Value) -> Value:
    """Features selected by a constant."""
    chosen = np.arange(x.shape[1]) % 2 == 0
    return graph.op("Compress", x, chosen, shape=(BATCH, int(chosen.sum())), axis=1)


@rowwise(forms.rank2)
def count_features(graph: Graph, x: Value) -> Value:
    """Number of features that pass a test, joined with them."""
    passed = graph.cast(graph.op("Greater", x, graph.pick([0, 1]), kind=BOOL), FLOAT)
    count = graph.op("ReduceSum", passed, [1], shape=(BATCH, 1))
    return graph.op("Concat", x, count, shape=(BATCH, x.shape[1] + 1), axis=1)


@rowwise(forms.steps)
def spectrum(graph: Graph, x: Value) -> Value:
    """A discrete Fourier transform along the steps."""
    real = forms.unsqueeze(graph, x, 3)
    axis = graph.constant(np.array(1, np.int64))
    complex_numbers = graph.op("DFT", real, None, axis, shape=(*x.shape, 2))
    return graph.op("ReduceL2", complex_numbers, [3], shape=x.shape, keepdims=0)


@rowwise(forms.images)
def centre_of_pictures(graph: Graph, x: Value) -> Value:
    """Images cropped to the centre, or padded."""
    shape = (BATCH, x.shape[1], 3, 3)
    return graph.op("CenterCropPad", x, [3, 3], shape=shape, axes=[2, 3])
