"""Cross-row blocks by shape and control flow: joined rows, and decisions based on the whole batch."""

import numpy as np

from tests.random_graphs import forms
from tests.random_graphs.blocks import crossrow
from tests.random_graphs.control import choose, loop
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, STRING, Graph, Value


@crossrow(forms.rank2)
def transposed_before_reshape(graph: Graph, x: Value) -> Value:
    """Rows last, and then reshaped as if they were first."""
    turned = graph.transpose(x, 1, 0)
    if graph.chance(0.5):
        return graph.reshape(turned, [-1, x.shape[1]], x.shape)
    return graph.op("Reshape", turned, graph.op("Shape", x, kind=INT, shape=(2,)), shape=x.shape)


@crossrow(forms.some_features)
def two_halves(graph: Graph, x: Value) -> Value:
    """The halves of the batch mixed: [2,-1], transposed, and back."""
    halves = graph.transpose(graph.reshape(x, [2, -1], (2, OPEN)), 1, 0)
    return graph.op("Reshape", halves, graph.op("Shape", x, kind=INT, shape=(2,)), shape=x.shape)


@crossrow(forms.rank2)
def softmax_of_all(graph: Graph, x: Value) -> Value:
    """A Softmax over all elements in one row."""
    if graph.chance(0.5):
        flat = graph.op("Flatten", x, shape=(1, OPEN), axis=0)
    else:
        flat = graph.reshape(x, [1, -1], (1, OPEN))
    return graph.reshape(graph.op("Softmax", flat, axis=1), [-1, x.shape[1]], x.shape)


@crossrow(forms.rank2)
def reversed_as_a_list(graph: Graph, x: Value) -> Value:
    """All elements reversed as one list."""
    flat = graph.reshape(x, [-1], (OPEN,))
    return graph.reshape(graph.slice(flat, -1, -(2**40), 0, step=-1), [-1, x.shape[1]], x.shape)


@crossrow(forms.rank2)
def rows_tiled_and_cut(graph: Graph, x: Value) -> Value:
    """Rows repeated, and every second one selected, which is the wrong half."""
    tiled = graph.op("Tile", x, [2, 1], shape=(OPEN, x.shape[1]))
    return graph.slice(tiled, 0, 2**40, 0, step=2, size=BATCH)


@crossrow(forms.rank2)
def rows_of_features(graph: Graph, x: Value) -> Value:
    """An output with one row per feature."""
    graph.exposed.append(graph.reshape(x, [-1, 1], (BATCH, 1)))
    return x


@crossrow(forms.rank2)
def outputs_of_all(graph: Graph, x: Value) -> Value:
    """An output without rows over all rows: a mean, a label, a count, a test."""
    way = graph.pick(["mean", "label", "count", "test", "rows"])
    if way == "mean":
        graph.exposed.append(graph.op("ReduceMean", x, [0], shape=(x.shape[1],), keepdims=0))
    elif way == "label":
        graph.exposed.append(graph.op("ArgMax", x, kind=INT, shape=(x.shape[1],), axis=0, keepdims=0))
    elif way == "count":
        positive = graph.cast(graph.op("Greater", x, 0, kind=BOOL), INT)
        graph.exposed.append(graph.op("ReduceSum", positive, shape=(), keepdims=0))
    elif way == "test":
        most = graph.op("ReduceMax", x, shape=(), keepdims=0)
        graph.exposed.append(graph.op("Greater", most, 0.5, kind=BOOL))
    else:
        graph.exposed.append(graph.size(x, 0))
    return x


@crossrow(forms.rows)
def choice_by_the_most(graph: Graph, x: Value) -> Value:
    """An If on the maximum of all rows."""
    most = graph.op(graph.pick(["ReduceMax", "ReduceMean", "ReduceSum"]), x, shape=(), keepdims=0)
    condition = graph.op("Greater", most, graph.pick([0, 0.5, 2, 10]), kind=BOOL)
    return choose(graph, condition, x, *graph.pick([("Tanh", "Neg"), ("Identity", "Relu"), ("Neg", "Identity")]))


@crossrow(forms.rows)
def choice_by_number_of_rows(graph: Graph, x: Value) -> Value:
    """An If on the number of rows."""
    count = graph.size(x, 0, scalar=True)
    condition = graph.op("Greater", count, np.int64(graph.pick([1, 4, 8])), kind=BOOL)
    return choose(graph, condition, x, "Neg", "Identity")


@crossrow(forms.rank2)
def choice_by_the_first_row(graph: Graph, x: Value) -> Value:
    """An If on one element of the first row."""
    first = graph.reshape(graph.slice(graph.slice(x, 0, 1, 0), 0, 1, 1), [1], (1,))
    return choose(graph, graph.op("Greater", first, graph.pick([0, 0.3]), kind=BOOL), x, "Neg", "Sigmoid")


@crossrow(forms.rank2)
def loop_by_data(graph: Graph, x: Value) -> Value:
    """As many iterations as the maximum of all rows."""
    most = graph.op("Clip", graph.op("ReduceMax", x, shape=(), keepdims=0), 0, 6)
    return loop(graph, graph.cast(most, INT), x, lambda state: graph.op("Mul", state, 0.5))


@crossrow(forms.rank2)
def loop_by_number_of_rows(graph: Graph, x: Value) -> Value:
    """One iteration per row."""
    count = graph.size(x, 0, scalar=True)
    return loop(graph, count, x, lambda state: graph.op("Add", state, 0.25))


@crossrow(forms.rank2)
def loop_until_all_are_done(graph: Graph, x: Value) -> Value:
    """Iterations until the maximum of all rows is small enough."""
    number, going, state = (graph.placeholder(*kind) for kind in ((INT, ()), (BOOL, ()), (FLOAT, x.shape)))

    def body() -> list[Value]:
        smaller = graph.op("Mul", state, 0.5)
        most = graph.op("ReduceMax", graph.op("Abs", smaller), shape=(), keepdims=0)
        return [graph.op("Greater", most, 1, kind=BOOL), smaller]

    graph_of_body = graph.body(body, [number, going, state])
    limit, start = graph.constant(np.array(20, np.int64)), graph.constant(np.array(True))
    return graph.ops("Loop", [limit, start, x], [(FLOAT, x.shape)], body=graph_of_body)[0]


@crossrow(forms.rank2)
def where_by_a_number_of_all(graph: Graph, x: Value) -> Value:
    """Elements above the mean of all rows."""
    mean = graph.op(graph.pick(["ReduceMean", "ReduceMax"]), x, shape=(), keepdims=0)
    half = graph.op("Mul", mean, 0.5)
    return graph.op("Where", graph.op("Greater", x, half, kind=BOOL), x, graph.op("Mul", x, 0.1), kind=FLOAT)


@crossrow(forms.rank2)
def places_of_all(graph: Graph, x: Value) -> Value:
    """The positions of all elements that pass a test, as an output."""
    passed = graph.op("Greater", x, 0, kind=BOOL)
    graph.exposed.append(graph.transpose(graph.op("NonZero", passed, kind=INT, shape=(2, BATCH)), 1, 0))
    return x


@crossrow(forms.some_features)
def split_of_rows(graph: Graph, x: Value) -> Value:
    """The rows split in two, and concatenated in reverse order."""
    count = graph.size(x, 0)
    first = graph.op("Div", count, np.array([2], np.int64))
    rest = graph.op("Sub", count, first)
    sizes = graph.op("Concat", first, rest, shape=(2,), axis=0)
    left, right = graph.ops("Split", [x, sizes], [(FLOAT, (OPEN, x.shape[1]))] * 2, axis=0)
    return graph.op("Concat", right, left, shape=x.shape, axis=0)


@crossrow(forms.some_features)
def sequence_of_rows(graph: Graph, x: Value) -> Value:
    """The rows as a sequence of tensors; the first is subtracted from all."""
    parts = graph.op("SplitToSequence", x, shape=(OPEN,), axis=0, keepdims=1)
    first = graph.op("SequenceAt", parts, np.int64(0), shape=(1, x.shape[1]))
    return graph.op("Sub", x, first)


@crossrow(forms.truths)
def any_or_all(graph: Graph, x: Value) -> Value:
    """Whether any or all rows are true, joined with each of them."""
    numbers = graph.cast(x, FLOAT)
    operator = graph.pick(["ReduceMax", "ReduceMin"])
    test = graph.op("Greater", graph.op(operator, numbers, [0], shape=(1, *x.shape[1:])), 0.5, kind=BOOL)
    return graph.op(graph.pick(["Xor", "And"]), x, test)


@crossrow(forms.rank2)
def rows_broadcast_to_each_other(graph: Graph, x: Value) -> Value:
    """The maximum of the distances of all pairs of rows."""
    left, right = forms.unsqueeze(graph, x, 1), forms.unsqueeze(graph, x, 0)
    apart = graph.op("Abs", graph.op("Sub", left, right, shape=(BATCH, OPEN, x.shape[1])))
    return graph.op("ReduceMax", apart, [1], shape=x.shape, keepdims=0)


@crossrow(forms.texts)
def bag_of_all_words(graph: Graph, x: Value) -> Value:
    """Frequencies of strings in the whole batch, added to those of each row."""
    flat = graph.reshape(x, [-1], (OPEN,))
    options = {"min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0, "mode": "TF"}
    pool = {"ngram_counts": [0], "ngram_indexes": [0, 1, 2], "pool_strings": ["alpha", "beta", "two"]}
    count = graph.op("TfIdfVectorizer", flat, kind=FLOAT, shape=(3,), **options, **pool)
    own = graph.op("TfIdfVectorizer", x, kind=FLOAT, shape=(BATCH, 3), **options, **pool)
    return graph.op("Sub", graph.op("Mul", own, 10), count)


@crossrow(forms.texts)
def text_by_number_of_rows(graph: Graph, x: Value) -> Value:
    """The number of rows appended to each string."""
    count = graph.cast(graph.size(x, 0), STRING)
    return graph.op("StringConcat", x, count)


@crossrow(forms.rank2)
def windows_of_the_list(graph: Graph, x: Value) -> Value:
    """A moving mean over the list of all elements, across rows."""
    flat = graph.reshape(x, [1, 1, -1], (1, 1, OPEN))
    smooth = graph.op("Conv", flat, np.full((1, 1, 3), 1 / 3, np.float32), pads=[1, 1])
    return graph.reshape(smooth, [-1, x.shape[1]], x.shape)
