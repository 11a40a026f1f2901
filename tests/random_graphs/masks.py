"""Hide the effect of a cross-row block: from every answer, or from all but those to unusual rows."""

from collections.abc import Callable

import numpy as np

from tests.random_graphs import forms, joins
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, STRING, WORDS, Graph, Value

#: Joins the input of a block with its output.
Mask = Callable[[Graph, Value, Value], Value]

#: These change no answer.
DEAD: list[Mask] = []
#: These change only answers to requests with unusual rows.
RARE: list[Mask] = []


def add_dead(graph: Graph, before: Value, mixed: Value) -> Value:
    """Hide ``mixed`` completely."""
    return _add(graph, DEAD, before, mixed)


def add_rare(graph: Graph, before: Value, mixed: Value) -> Value:
    """Hide ``mixed`` unless a row is unusual."""
    return _add(graph, RARE, before, mixed)


def _add(graph: Graph, masks: list[Mask], before: Value, mixed: Value) -> Value:
    mask = graph.pick(masks)
    graph.note(f"({mask.__name__.replace('_', ' ')})")
    return mask(graph, forms.rank2(graph, before), joins.total(graph, mixed))


def multiplied_by_zero(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it times 0."""
    return graph.op("Add", before, graph.op("Mul", mixed, 0.0))


def clipped_away(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it clipped to nothing."""
    return graph.op("Add", before, graph.op("Clip", mixed, 0.0, 0.0))


def never_chosen(graph: Graph, before: Value, mixed: Value) -> Value:
    """Select it by a constant False."""
    never = graph.constant(np.array(False))
    return graph.op("Where", never, mixed, before, kind=FLOAT, shape=before.shape)


def in_a_dead_branch(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it in the branch of an If that a constant never selects."""
    branches = {
        "then_branch": graph.body(lambda: [graph.op("Add", before, mixed)]),
        "else_branch": graph.body(lambda: [graph.op("Neg", before)]),
    }
    return graph.op("If", graph.constant(np.array(False)), shape=before.shape, kind=FLOAT, **branches)


def unused(graph: Graph, before: Value, mixed: Value) -> Value:
    """Do not use it."""
    return before


def only_its_shape(graph: Graph, before: Value, mixed: Value) -> Value:
    """Use only its width."""
    width = graph.cast(graph.size(mixed, 1, scalar=True), FLOAT)
    return graph.op("Mul", before, width)


DEAD += [multiplied_by_zero, clipped_away, never_chosen, in_a_dead_branch, unused, only_its_shape]


def for_rare_rows(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it to unusual rows."""
    return graph.op("Where", rare_rows(graph), graph.op("Add", before, mixed), before, kind=FLOAT, shape=before.shape)


def for_rare_batches(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it to all rows if one is unusual."""
    rare = graph.op("ReduceMax", graph.cast(rare_rows(graph), FLOAT), shape=(), keepdims=0)
    return graph.op("Add", before, graph.op("Mul", mixed, rare))


def in_a_rare_branch(graph: Graph, before: Value, mixed: Value) -> Value:
    """Add it in the branch of an If for unusual rows."""
    rare = graph.op("ReduceMax", graph.cast(rare_rows(graph), INT), kind=INT, shape=(), keepdims=0)
    branches = {
        "then_branch": graph.body(lambda: [graph.op("Add", before, mixed)]),
        "else_branch": graph.body(lambda: [before]),
    }
    return graph.op("If", graph.cast(rare, BOOL), shape=before.shape, kind=FLOAT, **branches)


RARE += [for_rare_rows, for_rare_batches, in_a_rare_branch]


def rare_rows(graph: Graph) -> Value:
    """BOOL [batch,1], true for unusual rows of the first input, which are not too rare."""
    source = graph.inputs[0]
    value = source.value
    if value.kind == STRING:
        match = graph.op("Equal", forms.batch_first(graph, value), graph.pick(WORDS[:3]), kind=BOOL)
        return _any(graph, match)
    if source.vocabulary:
        last = np.array(source.vocabulary - 1, np.int32 if value.kind != INT else np.int64)
        return _any(graph, graph.op("Equal", forms.batch_first(graph, value), last, kind=BOOL))
    if value.kind == BOOL:
        numbers = forms.rows(graph, value)
        axes = list(range(1, numbers.rank))
        mean = graph.op("ReduceMean", numbers, axes, shape=(BATCH, *[1] * (numbers.rank - 1)))
        return _column(graph, graph.op("Greater", mean, 0.7, kind=BOOL))
    return _any(graph, graph.op("Greater", graph.op("Abs", forms.rows(graph, value)), 300.0, kind=BOOL))


def _any(graph: Graph, marked: Value) -> Value:
    numbers = graph.cast(marked, FLOAT)
    if numbers.rank == 1:
        numbers = forms.unsqueeze(graph, numbers, 1)
    axes = list(range(1, numbers.rank))
    most = graph.op("ReduceMax", numbers, axes, shape=(BATCH, *[1] * (numbers.rank - 1)))
    return _column(graph, graph.op("Greater", most, 0.5, kind=BOOL))


def _column(graph: Graph, marked: Value) -> Value:
    return graph.reshape(marked, [-1, 1], (BATCH, 1))
