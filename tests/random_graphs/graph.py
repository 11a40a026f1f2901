"""A graph under construction: nodes with the types and shapes of their results, weights, and the random source.

Shapes contain `BATCH` for the dimension that counts rows, `LENGTH` for the dynamic one that inputs share, and `OPEN`
for any other dynamic size.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
INT, SMALL_INT, BOOL, STRING = TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING

BATCH, LENGTH, OPEN = "batch", "length", "?"

#: Words of string inputs, which graphs search for.
WORDS = ("alpha", "beta", "gamma", "Delta", "one", "two", "the", "x1")

Shape = tuple[int | str, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: its name, its ONNX element type, and its shape."""

    name: str
    kind: int
    shape: Shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def axis(self) -> int | None:
        """The dimension that counts rows."""
        return self.shape.index(BATCH) if BATCH in self.shape else None


#: An argument of a node: a value, None for an omitted one, or a constant.
Argument = Value | np.ndarray | np.generic | float | str | list[int] | None


@dataclass(frozen=True, slots=True)
class Input:
    """An input of the graph. ``vocabulary`` bounds integers, which are then indices; 0 is no bound."""

    value: Value
    vocabulary: int = 0

    @property
    def shared(self) -> bool:
        """Whether all requests of a group must have the same value."""
        return self.value.axis is None


class Graph:
    """Collects nodes and constants. Everything random comes from ``rng`` and ``numpy``, which the seed determines."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.numpy = np.random.default_rng(self.rng.getrandbits(64))
        self.inputs: list[Input] = []
        #: Values that must become outputs.
        self.exposed: list[Value] = []
        self.recipe: list[str] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self._count = 0

    def fresh(self, stem: str) -> str:
        """Return an unused name."""
        self._count += 1
        return f"{stem}_{self._count}"

    def note(self, text: str) -> None:
        """Add ``text`` to the recipe."""
        self.recipe.append(text)

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``."""
        return self.rng.choice(options)

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < probability

    def constant(self, array: np.ndarray) -> Value:
        """Return a constant: an initializer or sometimes a node."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype) if array.dtype != object else STRING
        tensor = numpy_helper.from_array(array, self.fresh("constant"))
        if self.chance(0.15):
            self.nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
        else:
            self.constants.append(tensor)
        return Value(tensor.name, kind, array.shape)

    def weights(self, *shape: int, scale: float | None = None) -> np.ndarray:
        """Return random FP32 numbers, scaled so that a product preserves the size of the other factor."""
        scale = 1 / np.sqrt(max(1, np.prod(shape[:-1]))) if scale is None else scale
        return (self.numpy.normal(size=shape) * scale).astype(np.float32)

    def op(self, operator: str, *arguments: Argument, kind: int | None = None, shape: Shape | None = None, **more):
        """Add a node with one result, which has the type and shape of the first argument by default."""
        values = [self.argument(argument) for argument in arguments]
        first = values[0]
        kind = (FLOAT if first is None else first.kind) if kind is None else kind
        shape = (() if first is None else first.shape) if shape is None else shape
        return self.ops(operator, values, [(kind, tuple(shape))], **more)[0]

    def ops(
        self,
        operator: str,
        arguments: Sequence[Argument],
        results: Sequence[tuple[int, Shape] | None],
        domain: str = "",
        **attributes,
    ) -> list[Value]:
        """Add a node with several results; None is an omitted one."""
        names = [value.name if (value := self.argument(argument)) is not None else "" for argument in arguments]
        while names and not names[-1]:
            # ONNX Runtime 1.31 crashes on a LayerNormalization whose last input is named "".
            names.pop()
        values = [Value("" if result is None else self.fresh(operator), *(result or (0, ()))) for result in results]
        node = helper.make_node(operator, names, [value.name for value in values], domain=domain, **attributes)
        if self.chance(0.5):
            node.name = self.fresh("node")
        self.nodes.append(node)
        return values

    def argument(self, argument: Argument) -> Value | None:
        """Convert an argument to a value: lists are INT64, plain numbers FP32."""
        if argument is None or isinstance(argument, Value):
            return argument
        if isinstance(argument, list):
            return self.constant(np.array(argument, np.int64))
        if isinstance(argument, str):
            return self.constant(np.array([argument], object))
        if isinstance(argument, int | float):
            return self.constant(np.array(argument, np.float32))
        return self.constant(np.asarray(argument))

    def body(self, make: Callable[[], Sequence[Value]], inputs: Sequence[Value] = ()) -> onnx.GraphProto:
        """Return the subgraph that ``make`` adds, for the attributes of If, Loop and Scan."""
        outer, self.nodes = self.nodes, []
        try:
            results = [self.op("Identity", value) for value in make()]
            return helper.make_graph(
                self.nodes, self.fresh("body"), [_open(v) for v in inputs], [_open(v) for v in results]
            )
        finally:
            self.nodes = outer

    def placeholder(self, kind: int, shape: Shape) -> Value:
        """Return an input for a `body`."""
        return Value(self.fresh("inner"), kind, tuple(shape))

    def size(self, value: Value, axis: int, *, scalar: bool = False) -> Value:
        """Return ``value``'s size along ``axis`` as INT64 [1] or [], in one of the ways of exporters."""
        if not scalar and self.chance(0.5):
            return self.op("Shape", value, kind=INT, shape=(1,), start=axis, end=axis + 1)
        shape = self.op("Shape", value, kind=INT, shape=(value.rank,))
        index = np.array(axis if scalar else [axis], np.int64)
        return self.op("Gather", shape, index, kind=INT, shape=() if scalar else (1,), axis=0)

    def sizes(self, *parts: Value | int) -> Value:
        """Return INT64 [n], a shape of static sizes and sizes that `size` returned as [1]."""
        values = [part if isinstance(part, Value) else self.argument([part]) for part in parts]
        return self.op("Concat", *values, kind=INT, shape=(len(parts),), axis=0)

    def reshape(self, value: Value, sizes: Sequence[int], shape: Shape) -> Value:
        """Reshape to constant ``sizes``, with the result ``shape``."""
        return self.op("Reshape", value, list(sizes), shape=shape)

    def slice(self, value: Value, start: int, stop: int, axis: int, step: int = 1, size: int | str = OPEN) -> Value:
        """Slice ``value`` along ``axis``."""
        shape = (*value.shape[:axis], size, *value.shape[axis + 1 :])
        return self.op("Slice", value, [start], [stop], [axis], [step], shape=shape)

    def transpose(self, value: Value, *order: int) -> Value:
        """Permute the dimensions."""
        return self.op("Transpose", value, shape=tuple(value.shape[axis] for axis in order), perm=list(order))

    def cast(self, value: Value, kind: int) -> Value:
        """Convert ``value`` to another element type."""
        return self.op("Cast", value, kind=kind, to=kind)


def _open(value: Value) -> onnx.ValueInfoProto:
    """Declare an input or output of a body, with all sizes dynamic that only a run determines."""
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    return helper.make_tensor_value_info(value.name, value.kind, sizes)
