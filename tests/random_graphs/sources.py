"""The inputs of a random graph."""

import onnx
from onnx import helper

from tests.random_graphs.graph import (
    BATCH,
    BOOL,
    DOUBLE,
    FLOAT,
    HALF,
    INT,
    LENGTH,
    SMALL_INT,
    STRING,
    Graph,
    Input,
    Shape,
    Value,
)

#: Element types with their frequencies.
_KINDS = {FLOAT: 58, INT: 16, STRING: 8, BOOL: 4, HALF: 4, DOUBLE: 4, SMALL_INT: 6}
_SHAPES: list[Shape] = [
    (BATCH, 4),
    (BATCH, 4),
    (BATCH, 3),
    (BATCH,),
    (BATCH, 1),
    (BATCH, LENGTH),
    (BATCH, LENGTH, 4),
    (BATCH, 5, 3),
    (BATCH, 2, 4, 4),
    (LENGTH, BATCH, 3),
    (4, BATCH, 3),
]
_SHARED_SHAPES: list[Shape] = [(), (), (1,), (4,)]


def add_inputs(graph: Graph, *, only_one: bool) -> None:
    """Declare one to three inputs; the first has rows, and one of the others may be shared."""
    _add_batched(graph)
    if only_one:
        return
    for _ in range(graph.pick([0, 0, 1, 1, 2])):
        if graph.chance(0.35) and not any(spec.shared for spec in graph.inputs):
            _add_shared(graph)
        else:
            _add_batched(graph)


def _add_batched(graph: Graph) -> None:
    kind = graph.rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    shapes = [shape for shape in _SHAPES if len(shape) < 3] if kind in {STRING, INT} else _SHAPES
    shape = graph.pick(shapes)
    vocabulary = 6 if kind in {INT, SMALL_INT} and graph.chance(0.7) else 0
    value = Value(f"input_{len(graph.inputs)}", kind, shape)
    graph.inputs.append(Input(value, vocabulary))
    graph.note(f"{_name(kind)} {list(shape)}")


def _add_shared(graph: Graph) -> None:
    kind, shape = graph.pick([FLOAT, FLOAT, INT, BOOL]), graph.pick(_SHARED_SHAPES)
    graph.inputs.append(Input(Value(f"shared_{len(graph.inputs)}", kind, shape)))
    graph.note(f"shared {_name(kind)} {list(shape)}")


def declare(value: Value, names: dict[str, str | None]) -> onnx.ValueInfoProto:
    """Declare ``value`` with ``names`` of its dynamic dimensions; None is one without a name."""
    dimensions = [size if isinstance(size, int) else names.get(size) for size in value.shape]
    return helper.make_tensor_value_info(value.name, value.kind, dimensions)


def _name(kind: int) -> str:
    return onnx.TensorProto.DataType.Name(kind)
