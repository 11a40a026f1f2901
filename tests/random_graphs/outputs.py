"""The outputs of a random graph: the end of the chain of blocks, and others."""

import numpy as np
import onnx

from tests.random_graphs import forms
from tests.random_graphs.graph import BATCH, BOOL, DOUBLE, HALF, INT, SMALL_INT, STRING, Graph, Value
from tests.random_graphs.sources import declare


def add_outputs(
    graph: Graph, last: Value, names: dict[str, str | None], *, mixed: bool
) -> tuple[dict[str, int | None], list[onnx.ValueInfoProto]]:
    """Declare one to three outputs, or more if a block has exposed some, with their batch axes.

    With ``mixed`` the end of the chain is mostly unchanged, so that the effects of rows on each other are not lost.
    """
    exposed = list(dict.fromkeys(graph.exposed))
    values = [last if mixed and graph.chance(0.85) else _finished(graph, last), *exposed]
    if graph.chance(0.35):
        values.append(_another(graph, last))
    if graph.chance(0.12):
        values.append(_without_rows(graph))
    graph.rng.shuffle(values)
    named = [_named(graph, value, f"output_{number}") for number, value in enumerate(values)]
    axes = {value.name: value.axis for value in named}
    return axes, [_declared(graph, value, names) for value in named]


def _named(graph: Graph, value: Value, name: str) -> Value:
    """Give ``value`` its own name, so that it can be an output."""
    result = graph.op("Identity", value)
    graph.nodes[-1].output[0] = name
    return Value(name, result.kind, result.shape)


def _declared(graph: Graph, value: Value, names: dict[str, str | None]) -> onnx.ValueInfoProto:
    """Declare an output, sometimes as exporters do: with invented or missing names."""
    if value.axis in {None, 0} and graph.chance(0.2):
        names = {**names, BATCH: graph.pick([None, f"unk__{graph.rng.randint(1, 99)}"])}
    info = declare(value, names)
    if value.axis == 0 and graph.chance(0.04):
        info.type.tensor_type.ClearField("shape")
    return info


def _finished(graph: Graph, last: Value) -> Value:
    """Convert the end of the chain to an output: mostly unchanged."""
    way = graph.rng.choices(list(_FINISHES), [60, 6, 6, 4, 5, 5, 5])[0]
    return _FINISHES[way](graph, last)


def _another(graph: Graph, last: Value) -> Value:
    """Build a second output from the end of the chain, or from an input."""
    batched = [spec.value for spec in graph.inputs if not spec.shared]
    value = graph.pick([last, *batched])
    way = graph.pick(list(_FINISHES))
    return _FINISHES[way](graph, value)


def _without_rows(graph: Graph) -> Value:
    """Build an output that all rows share: a constant, a size, or a shared input."""
    shared = [spec.value for spec in graph.inputs if spec.shared]
    if shared and graph.chance(0.5):
        return graph.op("Identity", graph.pick(shared))
    source = graph.inputs[0].value
    if source.axis == 0 and source.rank > 1 and graph.chance(0.5):
        return graph.size(source, 1)
    return graph.constant(graph.pick([np.array([10, 20, 30]), np.array(["no", "yes"], object), np.float32([1.5])]))


def _label(graph: Graph, value: Value) -> Value:
    scores = forms.some_features(graph, value)
    return graph.op("ArgMax", scores, kind=INT, shape=(BATCH,), axis=1, keepdims=0)


def _label_in_words(graph: Graph, value: Value) -> Value:
    scores = forms.features(graph, forms.rank2(graph, value), 3)
    label = graph.op("ArgMax", scores, kind=INT, shape=(BATCH,), axis=1, keepdims=0)
    return graph.op("Gather", np.array(["low", "middle", "high"], object), label, kind=STRING, shape=(BATCH,))


def _test(graph: Graph, value: Value) -> Value:
    return graph.op("Greater", forms.rows(graph, value), 0.5, kind=BOOL)


def _another_type(graph: Graph, value: Value) -> Value:
    bounded = graph.op("Clip", forms.rows(graph, value), -1000, 1000)
    return graph.cast(bounded, graph.pick([DOUBLE, HALF, INT, SMALL_INT]))


def _rows_second(graph: Graph, value: Value) -> Value:
    """Move the rows to axis 1, if the inputs make their name clear."""
    if all(spec.value.axis == 0 for spec in graph.inputs if not spec.shared):
        return forms.rank2(graph, value)
    return graph.transpose(forms.rank2(graph, value), 1, 0)


_FINISHES = {
    "same": lambda graph, value: value,
    "label": _label,
    "label in words": _label_in_words,
    "test": _test,
    "another type": _another_type,
    "one number": forms.rank1,
    "rows second": _rows_second,
}
