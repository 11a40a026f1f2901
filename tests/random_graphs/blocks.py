"""The catalogue: what graphs are made of, and what each part wants to be given."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.random_graphs.graph import Graph, Value

#: Turns any value with rows into one that a block can take.
Form = Callable[[Graph, Value], Value]
Make = Callable[[Graph, Value], Value]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a graph: ``make`` adds it behind a value that ``form`` has brought into shape."""

    name: str
    form: Form
    make: Make

    def add(self, graph: Graph, value: Value) -> Value:
        """Add the block to ``graph`` behind ``value``."""
        graph.note(self.name)
        return self.make(graph, self.form(graph, value))


#: Blocks in which no row has any influence on another.
ROWWISE: list[Block] = []
#: Blocks that mix rows and then sort them out again. No exporter writes such graphs, and few are drawn.
ROUNDABOUT: list[Block] = []
#: Blocks in which rows have influence on each other, or on how many rows come out.
CROSSROW: list[Block] = []


def rowwise(form: Form) -> Callable[[Make], Make]:
    """Put a function into the catalogue of blocks that keep rows apart."""
    return _register(ROWWISE, form)


def crossrow(form: Form) -> Callable[[Make], Make]:
    """Put a function into the catalogue of blocks that mix rows."""
    return _register(CROSSROW, form)


def roundabout(form: Form) -> Callable[[Make], Make]:
    """Put a function into the catalogue of blocks that mix rows and sort them out again."""
    return _register(ROUNDABOUT, form)


def _register(blocks: list[Block], form: Form) -> Callable[[Make], Make]:
    def register(make: Make) -> Make:
        blocks.append(Block(make.__name__.replace("_", " "), form, make))
        return make

    return register
