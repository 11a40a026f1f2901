"""Row-wise blocks with subgraphs: If, Loop and Scan."""

import numpy as np
from onnx import helper

from tests.random_graphs import forms
from tests.random_graphs.blocks import rowwise
from tests.random_graphs.graph import BATCH, BOOL, FLOAT, INT, OPEN, Graph, Value


def choose(graph: Graph, condition: Value, x: Value, then: str, otherwise: str) -> Value:
    """Add an If that applies one of two operators to ``x``; the condition has one element."""
    branches = {
        name: graph.body(lambda operator=operator: [graph.op(operator, x)])
        for name, operator in (("then_branch", then), ("else_branch", otherwise))
    }
    return graph.op("If", condition, kind=x.kind, shape=x.shape, **branches)


@rowwise(forms.floats)
def constant_choice(graph: Graph, x: Value) -> Value:
    """An If whose condition is a constant."""
    return choose(graph, graph.constant(np.array(graph.chance(0.5))), x, "Tanh", "Neg")


@rowwise(forms.rank3)
def choice_by_steps(graph: Graph, x: Value) -> Value:
    """An If on the number of steps, which all rows share."""
    count = graph.size(x, 1, scalar=True)
    return choose(graph, graph.op("Greater", count, np.int64(3), kind=BOOL), x, "Sigmoid", "Softsign")


@rowwise(forms.rank2)
def choice_in_choice(graph: Graph, x: Value) -> Value:
    """An If in an If, both with constant conditions."""
    outer, inner = (graph.constant(np.array(graph.chance(0.5))) for _ in range(2))
    branches = {
        "then_branch": graph.body(lambda: [choose(graph, inner, x, "Tanh", "Relu")]),
        "else_branch": graph.body(lambda: [graph.op("Mul", x, 0.5)]),
    }
    return graph.op("If", outer, **branches, kind=FLOAT, shape=x.shape)


@rowwise(forms.some_features)
def loop_with_constant_count(graph: Graph, x: Value) -> Value:
    """A layer repeated by a Loop."""
    weights = graph.constant(graph.weights(x.shape[1], x.shape[1]))
    return loop(graph, graph.constant(np.array(3, np.int64)), x, lambda state: graph.op("MatMul", state, weights))


@rowwise(forms.rank3)
def loop_over_steps(graph: Graph, x: Value) -> Value:
    """A sum of steps, each selected by its index, in a Loop with one iteration per step."""
    first = graph.op("Gather", x, np.int64(0), shape=(BATCH, x.shape[2]), axis=1)
    number, going, state = (graph.placeholder(*kind) for kind in ((INT, ()), (BOOL, ()), (FLOAT, first.shape)))

    def body() -> list[Value]:
        step = graph.op("Gather", x, number, shape=first.shape, axis=1)
        return [graph.op("Identity", going), graph.op("Tanh", graph.op("Add", state, step))]

    graph_of_body = graph.body(body, [number, going, state])
    count = graph.size(x, 1, scalar=True)
    return graph.ops("Loop", [count, None, first], [(FLOAT, first.shape)], body=graph_of_body)[0]


@rowwise(forms.rank2)
def loop_that_collects(graph: Graph, x: Value) -> Value:
    """A Loop that concatenates its states."""
    number, going, state = (graph.placeholder(*kind) for kind in ((INT, ()), (BOOL, ()), (FLOAT, x.shape)))

    def body() -> list[Value]:
        following = graph.op("Mul", state, 0.5)
        return [graph.op("Identity", going), following, graph.op("Sin", graph.op("Clip", following, -9, 9))]

    graph_of_body = graph.body(body, [number, going, state])
    count = graph.constant(np.array(3, np.int64))
    results = [(FLOAT, x.shape), (FLOAT, (3, *x.shape))]
    return graph.transpose(graph.ops("Loop", [count, None, x], results, body=graph_of_body)[1], 1, 0, 2)


def loop(graph: Graph, count: Value, x: Value, step, condition: Value | None = None) -> Value:
    """Add a Loop that applies ``step`` to its state ``count`` times."""
    number, going, state = (graph.placeholder(*kind) for kind in ((INT, ()), (BOOL, ()), (x.kind, x.shape)))
    body = graph.body(lambda: [graph.op("Identity", going), step(state)], [number, going, state])
    return graph.ops("Loop", [count, condition, x], [(x.kind, x.shape)], body=body)[0]


@rowwise(forms.rank3)
def scan_over_steps(graph: Graph, x: Value) -> Value:
    """A recurrence by Scan, along the steps of each row."""
    width = x.shape[2]
    zeros = graph.op("Mul", graph.op("Gather", x, np.int64(0), shape=(BATCH, width), axis=1), 0.0)
    last, states = scan(graph, x, zeros, axis=1)
    return graph.pick([last, graph.transpose(states, 1, 0, 2)])


def scan(graph: Graph, x: Value, start: Value, axis: int) -> tuple[Value, Value]:
    """Add a Scan along ``axis``: the last state, and all of them along axis 0."""
    state, element = graph.placeholder(FLOAT, start.shape), graph.placeholder(FLOAT, start.shape)

    def body() -> list[Value]:
        following = graph.op("Tanh", graph.op("Add", graph.op("Mul", state, 0.7), element))
        return [following, following]

    results = [(FLOAT, start.shape), (FLOAT, (x.shape[axis], *start.shape))]
    last, states = graph.ops(
        "Scan",
        [start, x],
        results,
        body=graph.body(body, [state, element]),
        num_scan_inputs=1,
        scan_input_axes=[axis],
    )
    return last, states


@rowwise(forms.some_features)
def function_with_attention(graph: Graph, x: Value) -> Value:
    """A function of the model that weighs the features of a row."""
    name = graph.fresh("Weigh")
    nodes = [
        helper.make_node("Softmax", ["a"], ["weights"], axis=-1),
        helper.make_node("Mul", ["a", "weights"], ["b"]),
    ]
    graph.functions.append(
        helper.make_function("tests.local", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 20)])
    )
    return graph.op(name, x, domain="tests.local")


@rowwise(forms.some_features)
def loop_with_choice(graph: Graph, x: Value) -> Value:
    """An If inside a Loop, on the number of the iteration."""
    number, going, state = (graph.placeholder(*kind) for kind in ((INT, ()), (BOOL, ()), (FLOAT, x.shape)))

    def body() -> list[Value]:
        first = graph.op("Equal", number, np.int64(0), kind=BOOL)
        return [graph.op("Identity", going), choose(graph, first, state, "Tanh", "Neg")]

    body_graph = graph.body(body, [number, going, state])
    return graph.ops("Loop", [graph.constant(np.array(2, np.int64)), None, x], [(FLOAT, x.shape)], body=body_graph)[0]


@rowwise(forms.rank2)
def scan_that_ends_open(graph: Graph, x: Value) -> Value:
    """A Scan over the features, whose states are concatenated."""
    wide = forms.unsqueeze(graph, x, 2)
    zeros = graph.op("Mul", graph.slice(x, 0, 1, 1, size=1), 0.0)
    states = scan(graph, wide, zeros, axis=1)[1]
    return graph.transpose(graph.op("Squeeze", states, [2], shape=(OPEN, BATCH)), 1, 0)
