"""Row-wise blocks that look up, move and reshape, including those that only seem to mix rows."""

import numpy as np

from tests.random_graphs import forms
from tests.random_graphs.blocks import roundabout, rowwise
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, Graph, Value


def row_numbers(graph: Graph, x: Value) -> Value:
    """INT64 [batch] 0, 1, 2 …, in one of several ways."""
    if graph.chance(0.6):
        count = graph.size(x, x.axis or 0, scalar=True)
        return graph.op("Range", np.int64(0), count, np.int64(1), kind=INT, shape=(BATCH,))
    ones = graph.op("Expand", np.array([1], np.int64), graph.size(x, x.axis or 0), kind=INT, shape=(BATCH,))
    return graph.op("Squeeze", graph.op("NonZero", ones, kind=INT, shape=(1, BATCH)), [0], shape=(BATCH,))


@rowwise(forms.rows)
def flatten(graph: Graph, x: Value) -> Value:
    """All dimensions except the rows flattened."""
    if all(isinstance(size, int) for size in x.shape[1:]):
        return graph.op("Flatten", x, shape=(BATCH, int(np.prod(x.shape[1:]))), axis=1)
    return graph.reshape(x, [0, -1], (BATCH, OPEN))


@rowwise(forms.steps)
def reshape_by_arithmetic(graph: Graph, x: Value) -> Value:
    """A shape computed from the input's."""
    steps, width = graph.size(x, 1), graph.size(x, 2)
    product = graph.op("Mul", steps, width)
    sizes = graph.sizes(graph.size(x, 0), product) if graph.chance(0.5) else graph.sizes(-1, product)
    return graph.op("Reshape", x, sizes, shape=(BATCH, x.shape[1] * x.shape[2]))


@rowwise(forms.rank3)
def steps_as_rows_and_back(graph: Graph, x: Value) -> Value:
    """Steps as rows for a dense layer, and back."""
    width = x.shape[2]
    flat = graph.reshape(x, [-1, width], (OPEN, width))
    inner = graph.op("Tanh", graph.op("MatMul", flat, graph.weights(width, 5), shape=(OPEN, 5)))
    sizes = graph.sizes(graph.pick([graph.size(x, 0), -1]), graph.size(x, 1), 5)
    return graph.op("Reshape", inner, sizes, shape=(BATCH, x.shape[1], 5))


@rowwise(forms.steps)
def groups_as_rows_and_back(graph: Graph, x: Value) -> Value:
    """A norm over parts of a row, as rows, and back."""
    count = x.shape[1] * x.shape[2]
    flat = graph.reshape(x, [-1, x.shape[2]], (OPEN, x.shape[2]))
    return graph.reshape(graph.op("Softmax", flat, axis=-1), [-1, count], (BATCH, count))


@rowwise(forms.rank2)
def transposed_and_back(graph: Graph, x: Value) -> Value:
    """Rows last, work on the first dimension, and back."""
    turned = graph.transpose(x, 1, 0)
    return graph.transpose(graph.op("Softmax", turned, axis=0), 1, 0)


@rowwise(forms.steps)
def rows_in_the_middle(graph: Graph, x: Value) -> Value:
    """Rows on axis 1, sums over axis 0."""
    turned = graph.transpose(x, 1, 0, 2)
    operator = graph.pick(["ReduceMax", "ReduceSum"])
    return graph.op(operator, turned, [0], shape=(BATCH, x.shape[2]), keepdims=0)


@rowwise(forms.steps)
def heads_in_front(graph: Graph, x: Value) -> Value:
    """Steps before rows, a product for each, and back."""
    steps, width = x.shape[1:]
    turned = graph.transpose(x, 1, 0, 2)
    product = graph.op("MatMul", turned, graph.weights(steps, width, 3), shape=(steps, BATCH, 3))
    return graph.transpose(product, 1, 0, 2)


@rowwise(forms.rank2)
def constant_for_each_row(graph: Graph, x: Value) -> Value:
    """A constant expanded to the number of rows, joined with the features: a class token."""
    sizes = graph.sizes(graph.size(x, 0), 3)
    token = graph.op("Expand", graph.weights(1, 3, scale=1), sizes, shape=(BATCH, 3))
    return graph.op("Concat", token, x, shape=(BATCH, 3 + x.shape[1]), axis=1)


@rowwise(forms.rank2)
def zeros_for_each_row(graph: Graph, x: Value) -> Value:
    """A tensor made only from the input's shape."""
    shape = graph.op("Shape", x, kind=INT, shape=(2,))
    return graph.op("Add", graph.op("ConstantOfShape", shape, kind=FLOAT, shape=x.shape), x)


@rowwise(forms.rank2)
def same_rows_by_number(graph: Graph, x: Value) -> Value:
    """Gather all rows in their order."""
    return graph.op("Gather", x, row_numbers(graph, x), shape=x.shape, axis=0)


@rowwise(forms.rank2)
def one_feature_of_each_row(graph: Graph, x: Value) -> Value:
    """GatherND at (row, an index that the row selects)."""
    place = graph.op("ArgMax", x, kind=INT, shape=(BATCH, 1), axis=1, keepdims=1)
    if graph.chance(0.5):
        return graph.op("GatherND", x, place, shape=(BATCH,), batch_dims=1)
    numbers = forms.unsqueeze(graph, row_numbers(graph, x), 1)
    places = graph.op("Concat", numbers, place, kind=INT, shape=(BATCH, 2), axis=1)
    return graph.op("GatherND", x, places, shape=(BATCH,))


@rowwise(forms.rank2)
def rows_twice_and_cut(graph: Graph, x: Value) -> Value:
    """All rows repeated, and the first or second half selected."""
    other = graph.op("Neg", x)
    both = graph.op("Concat", x, other, shape=(OPEN, x.shape[1]), axis=0)
    rows = graph.size(x, 0)
    start, stop = graph.pick([(graph.argument([0]), rows), (rows, graph.argument([2**40]))])
    return graph.op("Slice", graph.op("Sigmoid", both), start, stop, [0], shape=x.shape)


@roundabout(forms.rank2)
def extra_row_and_cut(graph: Graph, x: Value) -> Value:
    """A constant row before all rows, removed again."""
    both = graph.op("Concat", graph.weights(1, x.shape[1], scale=1), x, shape=(OPEN, x.shape[1]), axis=0)
    return graph.slice(graph.op("Tanh", both), 1, 2**40, 0, size=BATCH)


@rowwise(forms.rank2)
def rows_reversed_twice(graph: Graph, x: Value) -> Value:
    """The rows reversed twice."""
    turned = graph.op("Sigmoid", graph.slice(x, -1, -(2**40), 0, step=-1, size=BATCH))
    return graph.slice(turned, -1, -(2**40), 0, step=-1, size=BATCH)


@rowwise(forms.rank2)
def rows_tiled_in_front(graph: Graph, x: Value) -> Value:
    """The rows for each of two weight matrices, summed."""
    wide = forms.unsqueeze(graph, x, 0)
    tiled = graph.op("Tile", wide, [2, 1, 1], shape=(2, BATCH, x.shape[1]))
    product = graph.op("MatMul", tiled, graph.weights(2, x.shape[1], 4), shape=(2, BATCH, 4))
    return graph.op("ReduceSum", product, [0], shape=(BATCH, 4), keepdims=0)


@rowwise(forms.rank3)
def times_number_of_steps(graph: Graph, x: Value) -> Value:
    """A sum divided by the number of steps, by Shape."""
    total = graph.op("ReduceSum", x, [1], shape=(BATCH, x.shape[2]), keepdims=0)
    count = graph.cast(graph.size(x, 1, scalar=True), FLOAT)
    return graph.op("Div", total, count)


@rowwise(forms.rank2)
def number_of_elements_by_rows(graph: Graph, x: Value) -> Value:
    """Divide by Size / Shape[0], which does not depend on the rows."""
    size = graph.op("Size", x, kind=INT, shape=())
    each = graph.op("Div", size, graph.size(x, 0, scalar=True), kind=INT)
    return graph.op("Div", x, graph.cast(each, FLOAT))


@rowwise(forms.some_features)
def gather_elements(graph: Graph, x: Value) -> Value:
    """Features in an order that each row selects."""
    count = x.shape[1]
    places = graph.ops("TopK", [x, [count]], [(FLOAT, x.shape), (INT, x.shape)], axis=1)[1]
    return graph.op("GatherElements", graph.op("Neg", x), places, axis=1)


@rowwise(forms.some_features)
def scatter_elements(graph: Graph, x: Value) -> Value:
    """Write to an index that each row selects."""
    place = graph.op("ArgMax", x, kind=INT, shape=(BATCH, 1), axis=1)
    value = graph.op("ReduceMin", x, [1], shape=(BATCH, 1))
    return graph.op("ScatterElements", x, place, value, axis=graph.pick([1, -1]))


@rowwise(forms.some_features)
def scatter_to_each_row(graph: Graph, x: Value) -> Value:
    """ScatterND at (row, 1) for all rows, by index."""
    numbers = forms.unsqueeze(graph, row_numbers(graph, x), 1)
    ones = graph.op("Expand", np.array([[1]], np.int64), graph.sizes(graph.size(x, 0), 1), kind=INT, shape=(BATCH, 1))
    places = graph.op("Concat", numbers, ones, kind=INT, shape=(BATCH, 2), axis=1)
    total = graph.op("ReduceSum", x, [1], shape=(BATCH,), keepdims=0)
    return graph.op("ScatterND", x, places, total)


@rowwise(forms.steps)
def gather_features(graph: Graph, x: Value) -> Value:
    """Some features in a constant order, one of them repeated."""
    order = graph.constant(np.array([1, 0, 1], np.int64))
    return graph.op("Gather", x, order, shape=(BATCH, x.shape[1], 3), axis=2)


@rowwise(forms.steps)
def first_or_last_step(graph: Graph, x: Value) -> Value:
    """One step of each row."""
    return graph.op("Gather", x, np.int64(graph.pick([0, -1])), shape=(BATCH, x.shape[2]), axis=1)


@rowwise(forms.rank2)
def lengths_as_mask(graph: Graph, x: Value) -> Value:
    """As many features as each row says, the rest zero."""
    total = graph.op("Abs", graph.op("ReduceSum", x, [1], shape=(BATCH, 1)))
    places = graph.constant(np.arange(x.shape[1], dtype=np.float32)[None])
    mask = graph.op("Less", places, total, kind=BOOL, shape=x.shape)
    return graph.op("Where", mask, x, graph.argument(0), kind=FLOAT)


@rowwise(forms.rank2)
def rows_as_channels(graph: Graph, x: Value) -> Value:
    """Pooling with the rows as channels of one image."""
    width = x.shape[1]
    picture = forms.unsqueeze(graph, x, 0)
    pooled = graph.op("MaxPool", picture, shape=(1, BATCH, width), kernel_shape=[min(2, width)], auto_pad="SAME_UPPER")
    return graph.op("Squeeze", pooled, [0], shape=x.shape)


@roundabout(forms.rank2)
def pairwise_diagonal(graph: Graph, x: Value) -> Value:
    """All products of rows, of which only the diagonal is used."""
    gram = graph.op("MatMul", graph.op("Clip", x, -50, 50), graph.transpose(x, 1, 0), shape=(BATCH, OPEN))
    eye = graph.op("EyeLike", gram)
    own = graph.op("ReduceSum", graph.op("Mul", gram, eye), [1], shape=(BATCH, 1))
    return graph.op("Concat", x, own, shape=(BATCH, x.shape[1] + 1), axis=1)


@roundabout(forms.rank2)
def same_rows_by_counting(graph: Graph, x: Value) -> Value:
    """Gather all rows in order, by indices from a cumulative sum of ones."""
    ones = graph.op("Expand", np.array([1], np.int64), graph.size(x, x.axis or 0), kind=INT, shape=(BATCH,))
    numbers = graph.op("CumSum", ones, graph.constant(np.array(0, np.int64)), exclusive=1)
    return graph.op("Gather", x, numbers, shape=x.shape, axis=0)
