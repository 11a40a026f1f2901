"""Join two values by row: a second input with the first, or a shared one with all rows."""

from collections.abc import Callable

import numpy as np

from tests.random_graphs import forms
from tests.random_graphs.control import choose
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, STRING, Graph, Value

Join = Callable[[Graph, Value, Value], Value]

JOINS: list[Join] = []
SHARED_JOINS: list[Join] = []


def join(graph: Graph, x: Value, other: Value) -> Value:
    """Join ``x`` and ``other`` in any way; ``other`` may be shared by all rows."""
    chosen = graph.pick(SHARED_JOINS if other.axis is None else JOINS)
    graph.note(chosen.__name__.replace("_", " "))
    return chosen(graph, x, other)


def side_by_side(graph: Graph, x: Value, other: Value) -> Value:
    """Concatenate the features of both."""
    left, right = forms.rank2(graph, x), forms.rank2(graph, other)
    return graph.op("Concat", left, right, shape=(BATCH, left.shape[1] + right.shape[1]), axis=graph.pick([1, -1]))


def added_up(graph: Graph, x: Value, other: Value) -> Value:
    """Add both, converted to the same width."""
    left, right = forms.rank2(graph, x), forms.rank2(graph, other)
    return graph.op("Add", left, forms.features(graph, right, left.shape[1]))


def multiplied(graph: Graph, x: Value, other: Value) -> Value:
    """Use one as the gate of the other."""
    left, right = forms.rank2(graph, x), forms.rank2(graph, other)
    return graph.op("Mul", left, graph.op("Sigmoid", forms.features(graph, right, left.shape[1])))


def chosen_by_the_other(graph: Graph, x: Value, other: Value) -> Value:
    """Select by a test of the other."""
    left, test = forms.rank2(graph, x), forms.truths(graph, forms.rank1(graph, other))
    return graph.op("Where", test, left, graph.argument(0.1), kind=FLOAT, shape=left.shape)


def dot_product(graph: Graph, x: Value, other: Value) -> Value:
    """Multiply each row with its row of the other."""
    left = forms.rank2(graph, x)
    right = forms.features(graph, forms.rank2(graph, other), left.shape[1])
    if graph.chance(0.5):
        return graph.op("Einsum", left, right, shape=(BATCH,), equation="bd,bd->b")
    sides = forms.unsqueeze(graph, left, 1), forms.unsqueeze(graph, right, 2)
    return graph.op("MatMul", *sides, shape=(BATCH, 1, 1))


def looked_up_by_the_other(graph: Graph, x: Value, other: Value) -> Value:
    """Select features by indices in the other."""
    left = forms.rank2(graph, x)
    places = graph.op("Mod", forms.indices(graph, forms.rank2(graph, other)), np.int64(left.shape[1]))
    found = graph.op("GatherElements", left, places, shape=places.shape, axis=1)
    return graph.op("Concat", left, found, shape=(BATCH, left.shape[1] + places.shape[1]), axis=1)


def attended_by_the_other(graph: Graph, x: Value, other: Value) -> Value:
    """Attention of the steps of one to those of the other."""
    left, right = forms.steps(graph, x), forms.steps(graph, other)
    keys = graph.op(
        "MatMul", right, graph.weights(right.shape[2], left.shape[2]), shape=(*right.shape[:2], left.shape[2])
    )
    scores = graph.op("MatMul", left, graph.transpose(keys, 0, 2, 1), shape=(BATCH, left.shape[1], right.shape[1]))
    return graph.op("MatMul", graph.op("Softmax", scores, axis=-1), keys, shape=left.shape)


JOINS += [
    side_by_side,
    added_up,
    multiplied,
    chosen_by_the_other,
    dot_product,
    looked_up_by_the_other,
    attended_by_the_other,
]


def scaled_by_shared(graph: Graph, x: Value, other: Value) -> Value:
    """Multiply or add one number, or one number per feature, for all rows."""
    left, number = forms.rank2(graph, x), _number(graph, other)
    if number.shape[-1:] and number.shape[-1] > 1:
        left = forms.features(graph, left, number.shape[-1])
    return graph.op(graph.pick(["Mul", "Add", "Sub"]), left, number)


def chosen_by_shared(graph: Graph, x: Value, other: Value) -> Value:
    """Decide for all rows by a shared value."""
    total = graph.op("ReduceSum", _number(graph, other), shape=(), keepdims=0)
    condition = graph.op("Greater", total, 0.5, kind=BOOL)
    return choose(graph, condition, forms.floats(graph, x), "Tanh", "Neg")


def weighed_by_shared(graph: Graph, x: Value, other: Value) -> Value:
    """Concatenate a shared value to the features of each row."""
    left, number = forms.rank2(graph, x), _number(graph, other)
    flat = graph.reshape(number, [1, -1], (1, int(np.prod(number.shape))))
    count = flat.shape[1]
    wide = graph.op("Expand", flat, graph.sizes(graph.size(left, 0), count), shape=(BATCH, count))
    return graph.op("Concat", left, wide, shape=(BATCH, left.shape[1] + count), axis=1)


SHARED_JOINS += [scaled_by_shared, chosen_by_shared, weighed_by_shared]


def _number(graph: Graph, shared: Value) -> Value:
    if shared.kind == STRING:
        return graph.cast(graph.op("Equal", shared, "alpha", kind=BOOL, shape=shared.shape), FLOAT)
    return shared if shared.kind == FLOAT else graph.cast(shared, FLOAT)


def total(graph: Graph, x: Value) -> Value:
    """Sum each row, clipped, as FP32 [batch,1]."""
    value = forms.rank2(graph, x)
    return graph.op("Clip", graph.op("ReduceSum", value, [1], shape=(BATCH, 1)), -1e6, 1e6)


def whole(graph: Graph, x: Value) -> Value:
    """Round to INT64."""
    return graph.cast(graph.op("Clip", x, -1e6, 1e6), INT)
