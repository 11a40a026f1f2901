"""Convert any value with rows to the shape and element type that a block needs, keeping rows independent."""

import numpy as np

from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, LENGTH, OPEN, STRING, WORDS, Graph, Value

#: Maximum number of features, to keep runs short.
_MOST_FEATURES = 48


def floats(graph: Graph, value: Value) -> Value:
    """FP32 of any shape."""
    if value.kind == STRING:
        return _encoded(graph, value)
    return value if value.kind == FLOAT else graph.cast(value, FLOAT)


def batch_first(graph: Graph, value: Value) -> Value:
    """Any element type, with the rows on axis 0."""
    if not value.axis:
        return value
    axis = value.axis
    return graph.transpose(value, axis, *(other for other in range(value.rank) if other != axis))


def rows(graph: Graph, value: Value) -> Value:
    """FP32 with the rows on axis 0 and at least one more dimension."""
    value = batch_first(graph, floats(graph, value))
    return unsqueeze(graph, value, 1) if value.rank == 1 else value


def rank1(graph: Graph, value: Value) -> Value:
    """FP32 [batch]."""
    value = batch_first(graph, floats(graph, value))
    if value.rank == 1:
        return value
    operator = graph.pick(["ReduceMean", "ReduceMax", "ReduceSum"])
    return graph.op(operator, value, list(range(1, value.rank)), shape=(BATCH,), keepdims=0)


def rank2(graph: Graph, value: Value) -> Value:
    """FP32 [batch,features]."""
    value = rows(graph, value)
    for axis in range(1, value.rank):
        value = value if isinstance(value.shape[axis], int) else _closed(graph, value, axis)
    if value.rank == 1:
        value = unsqueeze(graph, value, 1)
    if value.rank > 2:
        value = _flat(graph, value)
    features = value.shape[1]
    return graph.slice(value, 0, _MOST_FEATURES, 1, size=_MOST_FEATURES) if features > _MOST_FEATURES else value


def some_features(graph: Graph, value: Value) -> Value:
    """FP32 [batch,features] with at least two features."""
    value = rank2(graph, value)
    return value if value.shape[1] > 1 else features(graph, value, graph.pick([3, 4, 6]))


def rank3(graph: Graph, value: Value) -> Value:
    """FP32 [batch,steps,features], possibly with a dynamic number of steps."""
    value = rows(graph, value)
    if value.rank == 2 and value.shape[1] == LENGTH:
        value = graph.op("Mul", unsqueeze(graph, value, 2), graph.weights(3, scale=1), shape=(BATCH, LENGTH, 3))
    if value.rank == 3 and isinstance(value.shape[2], int) and 1 < value.shape[2] <= _MOST_FEATURES:
        return value
    return steps(graph, value)


def steps(graph: Graph, value: Value) -> Value:
    """FP32 [batch,steps,features], both static."""
    if value.rank == 3 and value.kind == FLOAT and value.axis == 0 and all(isinstance(d, int) for d in value.shape[1:]):
        return value
    count, width = graph.pick([(3, 4), (4, 3), (5, 2), (4, 4)])
    flat = features(graph, rank2(graph, value), count * width)
    return graph.reshape(flat, [graph.pick([0, -1]), count, width], (BATCH, count, width))


def images(graph: Graph, value: Value) -> Value:
    """FP32 [batch,channels,height,width]."""
    if value.rank == 4 and value.kind == FLOAT and value.axis == 0 and all(isinstance(d, int) for d in value.shape[1:]):
        return value
    channels, size = graph.pick([(1, 4), (2, 4), (4, 3), (4, 2)])
    flat = features(graph, rank2(graph, value), channels * size * size)
    return graph.reshape(flat, [graph.pick([0, -1]), channels, size, size], (BATCH, channels, size, size))


def time_major(graph: Graph, value: Value) -> Value:
    """FP32 [steps,batch,features]."""
    if value.rank == 3 and value.kind == FLOAT and value.axis == 1 and isinstance(value.shape[2], int):
        return value
    return graph.transpose(rank3(graph, value), 1, 0, 2)


def whole_numbers(graph: Graph, value: Value) -> Value:
    """INT64 with the rows on axis 0 and at least one more dimension; at most 1000 if converted from another type."""
    if value.kind != INT:
        scaled = graph.op("Mul", rows(graph, value), graph.pick([1, 4]))
        # Casting NaN is undefined, and differs between kernels.
        missing = graph.op("IsNaN", scaled, kind=BOOL)
        number = graph.op("Where", missing, 0.0, graph.op("Clip", scaled, -1000, 1000), kind=FLOAT, shape=scaled.shape)
        value = graph.cast(number, INT)
    value = batch_first(graph, value)
    return unsqueeze(graph, value, 1) if value.rank == 1 else value


def indices(graph: Graph, value: Value) -> Value:
    """INT64 [batch,n], each from 0 to 5."""
    value = whole_numbers(graph, value)
    if value.rank > 2:
        value = whole_numbers(graph, rank2(graph, value))
    return graph.op("Mod", value, np.int64(6))


def truths(graph: Graph, value: Value) -> Value:
    """BOOL with the rows on axis 0 and at least one more dimension."""
    if value.kind == BOOL:
        value = batch_first(graph, value)
        return unsqueeze(graph, value, 1) if value.rank == 1 else value
    operator = graph.pick(["Greater", "Less", "GreaterOrEqual"])
    return graph.op(operator, rows(graph, value), graph.pick([0, 0.25, 1]), kind=BOOL)


def texts(graph: Graph, value: Value) -> Value:
    """STRING [batch,n]."""
    if value.kind == STRING:
        value = batch_first(graph, value)
        return unsqueeze(graph, value, 1) if value.rank == 1 else value
    index = graph.op("Mod", indices(graph, value), np.int64(len(_LABELS)))
    return graph.op("Gather", np.array(_LABELS, object), index, kind=STRING, shape=index.shape)


def text_column(graph: Graph, value: Value) -> Value:
    """STRING [batch]."""
    if value.kind == STRING and value.rank == 1:
        return value
    value = texts(graph, value)
    return graph.op("Gather", value, np.int64(0), shape=(BATCH,), axis=1)


_LABELS = ("alpha", "beta gamma", "the one", "two")


def features(graph: Graph, value: Value, count: int) -> Value:
    """Convert FP32 [batch,n] to ``count`` features by a dense layer."""
    if value.shape[1] == count:
        return value
    return graph.op("MatMul", value, graph.weights(value.shape[1], count), shape=(BATCH, count))


def unsqueeze(graph: Graph, value: Value, axis: int) -> Value:
    """Add a dimension of size 1."""
    return graph.op("Unsqueeze", value, [axis], shape=(*value.shape[:axis], 1, *value.shape[axis:]))


def _closed(graph: Graph, value: Value, axis: int) -> Value:
    """Convert a dynamic dimension to a static one."""
    if graph.chance(0.5):
        padded = graph.op("Pad", value, [0, 4], None, [axis], shape=_with_size(value, axis, OPEN))
        return graph.slice(padded, 0, 4, axis, size=4)
    operator = graph.pick(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"])
    return graph.op(operator, value, [axis], shape=_with_size(value, axis, 1))


def _flat(graph: Graph, value: Value) -> Value:
    count = int(np.prod(value.shape[1:]))
    way = graph.pick(["flatten", "zero", "open", "shape"])
    if way == "flatten":
        return graph.op("Flatten", value, shape=(BATCH, count))
    if way == "shape":
        return graph.op("Reshape", value, graph.sizes(graph.size(value, 0), -1), shape=(BATCH, count))
    return graph.reshape(value, [0, -1] if way == "zero" else [-1, count], (BATCH, count))


def _encoded(graph: Graph, value: Value) -> Value:
    """Convert strings to numbers: by a table, the number of words, or a comparison."""
    way = graph.pick(["table", "words", "match"])
    if way == "table":
        return graph.op(
            "LabelEncoder",
            value,
            kind=FLOAT,
            domain="ai.onnx.ml",
            keys_strings=[*WORDS, *_LABELS],
            values_floats=[float(number) for number in range(len(WORDS) + len(_LABELS))],
            default_float=-2.0,
        )
    if way == "words":
        results = [(STRING, (*value.shape, OPEN)), (INT, value.shape)]
        return graph.cast(graph.ops("StringSplit", [value], results, delimiter=" ")[1], FLOAT)
    matches = graph.op("RegexFullMatch", value, kind=BOOL, pattern=graph.pick([".*a.*", "[a-z ]*", ".{0,6}"]))
    return graph.cast(matches, FLOAT)


def _with_size(value: Value, axis: int, size: int | str) -> tuple[int | str, ...]:
    return (*value.shape[:axis], size, *value.shape[axis + 1 :])
