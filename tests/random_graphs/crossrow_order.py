"""Cross-row blocks by position: rows moved, sorted, selected by index, processed in sequence."""

import numpy as np

from tests.random_graphs import forms
from tests.random_graphs.blocks import crossrow
from tests.random_graphs.control import scan
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, STRING, Graph, Value
from tests.random_graphs.places import row_numbers


@crossrow(forms.rows)
def position_of_the_row(graph: Graph, x: Value) -> Value:
    """The index of the row, computed in several ways."""
    numbers = graph.cast(row_numbers(graph, x), FLOAT)
    column = graph.reshape(numbers, [-1, *[1] * (x.rank - 1)], (BATCH, *[1] * (x.rank - 1)))
    return graph.op(graph.pick(["Add", "Sub"]), x, column)


@crossrow(forms.rank2)
def table_by_position(graph: Graph, x: Value) -> Value:
    """A weight for each index of a row."""
    bounded = graph.op("Min", row_numbers(graph, x), np.int64(63))
    table = graph.weights(64, x.shape[1], scale=1)
    return graph.op("Add", x, graph.op("Gather", table, bounded, shape=x.shape, kind=FLOAT))


@crossrow(forms.rows)
def rows_reversed(graph: Graph, x: Value) -> Value:
    """The rows from last to first."""
    return graph.slice(x, -1, -(2**40), 0, step=-1, size=BATCH)


@crossrow(forms.rank2)
def rows_reversed_by_number(graph: Graph, x: Value) -> Value:
    """Reversed by Range and Gather."""
    last = graph.op("Sub", graph.size(x, 0, scalar=True), np.int64(1))
    numbers = graph.op("Sub", last, row_numbers(graph, x), shape=(BATCH,))
    return graph.op("Gather", x, numbers, shape=x.shape, axis=0)


@crossrow(forms.rank2)
def rows_shifted(graph: Graph, x: Value) -> Value:
    """Each row in the place of the next; the first becomes the last one or zero."""
    most = graph.slice(x, 0, -1, 0)
    if graph.chance(0.5):
        return graph.op("Concat", graph.slice(x, -1, 2**40, 0), most, shape=x.shape, axis=0)
    return graph.op("Pad", most, [1, 0, 0, 0], shape=x.shape)


@crossrow(forms.rows)
def difference_to_one_row(graph: Graph, x: Value) -> Value:
    """Differences to the first or the last row of the batch."""
    place = graph.constant(np.array([graph.pick([0, -1])], np.int64))
    return graph.op("Sub", x, graph.op("Gather", x, place, shape=(1, *x.shape[1:]), axis=0))


@crossrow(forms.rank2)
def difference_to_the_row_before(graph: Graph, x: Value) -> Value:
    """Differences of consecutive rows."""
    before = graph.op("Pad", graph.slice(x, 0, -1, 0), [1, 0, 0, 0], shape=x.shape)
    return graph.op("Sub", x, before)


@crossrow(forms.rank2)
def rows_sorted(graph: Graph, x: Value) -> Value:
    """Columns sorted over the rows, or their order."""
    count = graph.size(x, 0)
    values, places = graph.ops("TopK", [x, count], [(FLOAT, x.shape), (INT, x.shape)], axis=0)
    return graph.pick([values, places])


@crossrow(forms.rank2)
def place_of_the_largest(graph: Graph, x: Value) -> Value:
    """The index of the row with the maximum of each feature, added to all."""
    place = graph.op(graph.pick(["ArgMax", "ArgMin"]), x, kind=INT, shape=(1, x.shape[1]), axis=0)
    return graph.op("Add", x, graph.cast(place, FLOAT))


@crossrow(forms.rank2)
def first_row_overwritten(graph: Graph, x: Value) -> Value:
    """A row replaced by a constant or a sum."""
    if graph.chance(0.5):
        return graph.op("ScatterND", x, np.array([[0]], np.int64), graph.weights(1, x.shape[1], scale=1))
    place = graph.constant(np.zeros((1, x.shape[1]), np.int64))
    return graph.op("ScatterElements", x, place, graph.weights(1, x.shape[1], scale=1), axis=0)


@crossrow(forms.rank2)
def rows_added_up_by_index(graph: Graph, x: Value) -> Value:
    """All rows added to one of them."""
    places = graph.op("Mul", row_numbers(graph, x), np.int64(0))
    places = forms.unsqueeze(graph, places, 1)
    return graph.op("ScatterND", x, places, x, reduction="add")


@crossrow(forms.rank2)
def rows_before_reversed(graph: Graph, x: Value) -> Value:
    """ReverseSequence along the rows."""
    wide = forms.unsqueeze(graph, x, 1)
    lengths = graph.size(x, 0)
    turned = graph.op("ReverseSequence", wide, lengths, batch_axis=1, time_axis=0)
    return graph.op("Squeeze", turned, [1], shape=x.shape)


@crossrow(forms.rank3)
def recurrence_along_rows(graph: Graph, x: Value) -> Value:
    """RNN, GRU or LSTM on [batch,steps,features] interpreted as [steps,batch,features]."""
    gates, operator = graph.pick([(1, "RNN"), (3, "GRU"), (4, "LSTM")])
    hidden = 3
    weights = graph.weights(1, gates * hidden, x.shape[2], scale=0.7)
    again = graph.weights(1, gates * hidden, hidden, scale=0.7)
    result = graph.op(operator, x, weights, again, shape=(BATCH, 1, x.shape[1], hidden), hidden_size=hidden)
    return graph.op("Squeeze", result, [1], shape=(BATCH, x.shape[1], hidden))


@crossrow(forms.rank2)
def scan_along_rows(graph: Graph, x: Value) -> Value:
    """A recurrence from row to row by Scan."""
    start = graph.constant(np.zeros(x.shape[1], np.float32))
    return scan(graph, x, start, axis=0)[1]


@crossrow(forms.rank2)
def gathered_along_rows(graph: Graph, x: Value) -> Value:
    """GatherElements over the rows: in sorted order, or always the first row."""
    if graph.chance(0.5):
        places = graph.op("ConstantOfShape", graph.op("Shape", x, kind=INT, shape=(2,)), kind=FLOAT, shape=x.shape)
        places = graph.cast(places, INT)
    else:
        places = graph.ops("TopK", [x, graph.size(x, 0)], [(FLOAT, x.shape), (INT, x.shape)], axis=0)[1]
    return graph.op("Sub", x, graph.op("GatherElements", x, places, axis=0))


@crossrow(forms.indices)
def rows_chosen_by_data(graph: Graph, x: Value) -> Value:
    """Each row selects a row by its index, if there are that many."""
    first = graph.op("Gather", x, np.int64(0), shape=(BATCH,), axis=1)
    bounded = graph.op("Mod", first, graph.size(x, 0, scalar=True))
    return graph.op("Gather", x, bounded, shape=x.shape, axis=0)


@crossrow(forms.indices)
def equal_rows(graph: Graph, x: Value) -> Value:
    """Number of rows with the same first element."""
    first = graph.slice(x, 0, 1, 1, size=1)
    same = graph.op("Equal", first, graph.transpose(first, 1, 0), kind=BOOL, shape=(BATCH, OPEN))
    return graph.op("ReduceSum", graph.cast(same, INT), [1], shape=(BATCH, 1))


@crossrow(forms.indices)
def distinct_numbers(graph: Graph, x: Value) -> Value:
    """Unique over the whole batch: the number of values, or the index of each element's value."""
    results = [(INT, (OPEN,)), None, (INT, (OPEN,)), (INT, (OPEN,))]
    distinct, _, inverse, counts = graph.ops("Unique", [x], results, sorted=1)
    way = graph.pick(["inverse", "counts", "number"])
    if way == "number":
        return graph.op("Add", x, graph.size(distinct, 0))
    found = inverse if way == "inverse" else graph.op("Gather", counts, inverse, shape=(OPEN,))
    return graph.op("Reshape", found, graph.op("Shape", x, kind=INT, shape=(2,)), shape=x.shape)


@crossrow(forms.rank2)
def rows_left_out(graph: Graph, x: Value) -> Value:
    """Only the rows that pass a test, as another output."""
    first = graph.op("Gather", x, np.int64(0), shape=(BATCH,), axis=1)
    passed = graph.op("Greater", first, 0, kind=BOOL)
    if graph.chance(0.5):
        graph.exposed.append(graph.op("Compress", x, passed, shape=x.shape, axis=0))
        return x
    places = graph.op("Squeeze", graph.op("NonZero", passed, kind=INT, shape=(1, OPEN)), [0], shape=(OPEN,))
    graph.exposed.append(graph.op("Gather", x, places, shape=x.shape, axis=0))
    return x


@crossrow(forms.rank2)
def row_too_many(graph: Graph, x: Value) -> Value:
    """A constant row appended before or after the others."""
    row = graph.constant(graph.weights(1, x.shape[1], scale=1))
    return graph.op("Concat", *graph.pick([[x, row], [row, x]]), shape=x.shape, axis=0)


@crossrow(forms.texts)
def text_of_the_first_row(graph: Graph, x: Value) -> Value:
    """The first row's string appended to each."""
    first = graph.op("Gather", x, np.array([0], np.int64), shape=(1, *x.shape[1:]), axis=0)
    return graph.op("StringConcat", x, first)


@crossrow(forms.text_column)
def words_padded_to_the_longest(graph: Graph, x: Value) -> Value:
    """The words of each string, in a tensor as wide as the longest row."""
    words, counts = graph.ops("StringSplit", [x], [(STRING, (BATCH, OPEN)), (INT, (BATCH,))], delimiter=" ")
    if graph.chance(0.5):
        graph.exposed.append(words)
        return counts
    return graph.op("Add", counts, graph.size(words, 1))


@crossrow(forms.text_column)
def words_left_out(graph: Graph, x: Value) -> Value:
    """StringNormalizer that drops rows with a certain word."""
    # The default locale is not available on every machine.
    graph.exposed.append(graph.op("StringNormalizer", x, stopwords=["alpha", "one"], is_case_sensitive=1, locale="C"))
    return x


@crossrow(forms.texts)
def number_of_distinct_texts(graph: Graph, x: Value) -> Value:
    """Frequency of the most frequent string of the batch."""
    words = graph.op("Gather", x, np.int64(0), shape=(BATCH,), axis=1)
    numbers = graph.op(
        "LabelEncoder",
        words,
        kind=INT,
        domain="ai.onnx.ml",
        keys_strings=["alpha", "beta", "two", "the one"],
        values_int64s=[1, 2, 3, 4],
        default_int64=0,
    )
    same = graph.op("Equal", forms.unsqueeze(graph, numbers, 1), numbers, kind=BOOL, shape=(BATCH, OPEN))
    return graph.op("ReduceSum", graph.cast(same, INT), [1], shape=(BATCH,), keepdims=0)
