"""The catalogue of blocks that graphs are built from, and the form of input that each needs."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.random_graphs.graph import Graph, Value

#: Converts any value with rows to the form that a block needs.
Form = Callable[[Graph, Value], Value]
Make = Callable[[Graph, Value], Value]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a graph: ``make`` adds it after a value that ``form`` has converted."""

    name: str
    form: Form
    make: Make

    def add(self, graph: Graph, value: Value) -> Value:
        """Add the block to ``graph`` after ``value``."""
        graph.note(self.name)
        return self.make(graph, self.form(graph, value))


#: Blocks in which rows are independent.
ROWWISE: list[Block] = []
#: Blocks that mix rows and separate them again. No exporter writes such graphs, and few are drawn.
ROUNDABOUT: list[Block] = []
#: Blocks in which rows affect each other, or the number of rows.
CROSSROW: list[Block] = []


def rowwise(form: Form) -> Callable[[Make], Make]:
    """Add a function to the catalogue of blocks with independent rows."""
    return _register(ROWWISE, form)


def crossrow(form: Form) -> Callable[[Make], Make]:
    """Add a function to the catalogue of blocks that mix rows."""
    return _register(CROSSROW, form)


def roundabout(form: Form) -> Callable[[Make], Make]:
    """Add a function to the catalogue of blocks that mix rows and separate them again."""
    return _register(ROUNDABOUT, form)


def _register(blocks: list[Block], form: Form) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        blocks.append(Block(make.__name__.replace("_", " "), form, make))
        return make

    return register
