"""Where the rows of a batch go in a model's graph: what can be said of batching without running anything. Pure.

Theory. Each value of the graph is one of these, worked out operator by operator from the inputs on (abstract
interpretation; the rules for the operators are in the other files of this package):

    SHARED     does not depend on the rows of the batch at all: constants, shared inputs, what is made of them
    COUNT      depends on how many rows there are, not on what is in them: Shape(x)[0] and what is made of it. With an
               ``axis``, it holds the numbers of the rows along it, which pick each row itself
    ROWS       has the rows along ``axis``: each slice depends on its own row, and on what is shared
    MIXED      depends on several rows, or on their number, in a way that reaches a row's answer
    UNKNOWN    nothing is known: an operator without a rule, or a shape that could not be followed. It is ``doubtful``
               if an operator that can mix rows has made something of it that could not be followed

ROWS comes with a shape in which the size of ``axis`` is a multiple of the number of rows: [rows,4,8] reshaped to
[rows*4,8] still has each row's part in one piece. Sizes are products of a number and of names (`Size`), so that such a
reshape can be followed there and back without knowing any open dimension.

Sizes that are not known have names of their own. Two of them that must be equal for the model to run at all are taken
to be equal, because the model is known to run, with one row and with several: the proof tries that in any case.

A model whose outputs all come out as ROWS, or as SHARED where they have no batch axis, answers each row by itself,
whatever the numbers are. One with a MIXED output does not. In all other cases only running it can tell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

#: The name that stands for the number of rows, and for the same where they stand in reverse.
ROWS_NAME = "rows of the batch"
REVERSED_NAME = "rows of the batch, the last one first"
#: The name that marks a size along which all rows stand several times, one batch behind the other.
STACKED_NAME = "copies of the batch"
#: How the name of a size begins along which something that is the same in any batch stands before and behind the rows.
_FRAMED = f"{ROWS_NAME} and more: "
#: How the name of a size begins that is that of the largest row: the others are padded.
_PADDED = "elements of the largest row and more: "
#: The same of a size that is not known but is at least so large.
_AT_LEAST = "at least "


@dataclass(frozen=True, slots=True)
class Size:
    """A dimension, or an element of a shape: ``factor`` times the product of ``names``, which are in order."""

    factor: int
    names: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """The size, if it is the same in every run."""
        return None if self.names and self.factor else self.factor

    @property
    def counts_rows(self) -> bool:
        """Whether it is a multiple of the number of rows, or of that and more."""
        return any(name.startswith(ROWS_NAME) for name in self.names)

    @property
    def frame(self) -> tuple[int, int] | None:
        """How many stand before the rows and behind them; None if nothing was put beside them."""
        for name in self.names:
            if name.startswith(_FRAMED):
                before, behind = name.removeprefix(_FRAMED).split()
                return int(before), int(behind)
        return None

    @property
    def padding(self) -> int | None:
        """How many elements are behind those of the largest row; None if the size does not follow from that row."""
        found = [int(name.removeprefix(_PADDED).split()[0]) for name in self.names if name.startswith(_PADDED)]
        return min(found, default=None)

    @property
    def least(self) -> int:
        """How large it is at least."""
        if self.number is not None:
            return self.number
        found = [int(name.removeprefix(_AT_LEAST).split()[0]) for name in self.names if name.startswith(_AT_LEAST)]
        return found[0] if len(self.names) == len(found) == 1 else 0

    @property
    def reversed(self) -> "Size":
        """The same with the rows the other way round."""
        other = {ROWS_NAME: REVERSED_NAME, REVERSED_NAME: ROWS_NAME}
        return Size(self.factor, tuple(sorted(other.get(name, name) for name in self.names)))

    def times(self, other: "Size") -> "Size":
        """Return the product."""
        return Size(self.factor * other.factor, tuple(sorted(self.names + other.names)))

    def over(self, other: "Size") -> "Size | None":
        """Return the quotient if it is whole whatever the names stand for, else None."""
        if other.factor == 0 or self.factor % other.factor:
            return None
        names = list(self.names)
        for name in other.names:
            if name not in names:
                return None
            names.remove(name)
        return Size(self.factor // other.factor, tuple(names))


ONE = Size(1)
ROWS_SIZE = Size(1, (ROWS_NAME,))


def framed(before: int, behind: int) -> Size:
    """Return the size of a batch with so many more before and behind it that no row has a part in."""
    return Size(1, (f"{_FRAMED}{before} {behind}",))


def padded(more: int, what: Size) -> Size:
    """Return the size of the largest row and so many more; ``what`` tells one such size from another."""
    return Size(1, (f"{_PADDED}{more} of {' '.join(what.names)}",))


def at_least(number: int, what: Size) -> Size:
    """Return the size that ``what`` is the name of, and of which it is known that it is at least ``number``."""
    return Size(1, (f"{_AT_LEAST}{number} of {' '.join(what.names)}",))


class Kind(Enum):
    """How a value depends on the rows; see the module."""

    SHARED = "shared"
    COUNT = "count"
    ROWS = "rows"
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of one value.

    ``shape`` has None for a size that is not known and is None if the rank is not known either. ``elements`` are those
    of a small integer tensor, None where not known. ``why`` says what mixes the rows, or what is not known.
    """

    kind: Kind
    axis: int = -1
    shape: tuple[Size | None, ...] | None = None
    elements: tuple[Size | None, ...] | None = None
    why: str = ""
    doubtful: bool = False

    @property
    def rank(self) -> int | None:
        """The number of dimensions, if it is known."""
        return None if self.shape is None else len(self.shape)

    def size(self, axis: int) -> Size | None:
        """Return the size along ``axis``, None if it is not known."""
        return None if self.shape is None or not -len(self.shape) <= axis < len(self.shape) else self.shape[axis]

    @property
    def is_padded(self) -> bool:
        """Whether rows are padded to the largest."""
        return any(size is not None and size.padding is not None for size in self.shape or ())

    @property
    def is_exact(self) -> bool:
        """Whether each index along the batch axis is one row."""
        return self.kind is Kind.ROWS and self.size(self.axis) == ROWS_SIZE

    @property
    def is_plain(self) -> bool:
        """Whether each index along the batch axis is one row, if the model gives as many rows as it takes."""
        size = self.size(self.axis)
        names = () if size is None else size.names
        is_whole = size is not None and size.factor == 1 and STACKED_NAME not in names
        return self.kind is Kind.ROWS and is_whole and ROWS_NAME in names


def shared(shape: Sequence[Size | None] | None = None, elements: Sequence[Size | None] | None = None) -> Flow:
    """Return a value that no row has a part in."""
    return Flow(Kind.SHARED, shape=_maybe(shape), elements=_maybe(elements))


def count(shape: Sequence[Size | None] | None = None, elements: Sequence[Size | None] | None = None) -> Flow:
    """Return a value that depends on the number of rows only."""
    return Flow(Kind.COUNT, shape=_maybe(shape), elements=_maybe(elements))


def rows(axis: int, shape: Sequence[Size | None]) -> Flow:
    """Return a value with the rows along ``axis`` of ``shape``; a negative one counts from the end."""
    return Flow(Kind.ROWS, axis=axis % len(shape), shape=tuple(shape))


def mixed(why: str) -> Flow:
    """Return a value that depends on several rows."""
    return Flow(Kind.MIXED, why=why)


def unknown(why: str) -> Flow:
    """Return a value of which nothing is known."""
    return Flow(Kind.UNKNOWN, why=why)


def worst(flows: Sequence[Flow]) -> Flow | None:
    """Return the first value that is MIXED, else the first that is doubtful, else the first UNKNOWN, else None.

    It goes on without its shape, as what is made of it may have another one.
    """
    bad = [flow for flow in flows if flow.kind in {Kind.MIXED, Kind.UNKNOWN}]
    found = min(bad, key=lambda flow: 0 if flow.kind is Kind.MIXED else 1 if flow.doubtful else 2, default=None)
    return None if found is None else replace(found, shape=None, elements=None)


def joined(one: Flow, other: Flow, why: str) -> Flow:
    """Return what is true of a value that is one or the other."""
    if one == other:
        return one
    bad = worst([one, other])
    if bad is not None:
        return bad
    if one.kind is other.kind and one.axis == other.axis and one.why == other.why:
        return replace(one, shape=_joined_shape(one.shape, other.shape), elements=None)
    if one.kind is other.kind is Kind.ROWS and one.axis == other.axis:
        return replace(one, shape=_joined_shape(one.shape, other.shape), why="")
    if one.kind is other.kind is Kind.COUNT or {one.kind, other.kind} == {Kind.SHARED, Kind.COUNT}:
        return count(_joined_shape(one.shape, other.shape))
    return unknown(f"{why} gives rows in one case and something else in another")


def _joined_shape(
    one: tuple[Size | None, ...] | None, other: tuple[Size | None, ...] | None
) -> tuple[Size | None, ...] | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def either(one: Size | None, other: Size | None) -> Size | None:
    """Return the larger size of two that are laid over each other; it is the same for every row unless one counts."""
    if one == other:
        return one
    if one is None or other is None or one.counts_rows or other.counts_rows:
        return None
    return Size(1, (" or ".join(sorted({_described(one), _described(other)})),))


def same_rows(one: Size | None, other: Size | None) -> bool:
    """Whether two sizes along the rows are equal in a model that runs: where they may be, they must be."""
    if one is None or other is None or one.factor != other.factor:
        return False
    return _order(one) == _order(other)


def _order(size: Size) -> set[str]:
    """Return what tells in which order the rows stand along ``size``."""
    return {name for name in size.names if name == STACKED_NAME or name.startswith(ROWS_NAME)}


def _described(size: Size) -> str:
    return " ".join([str(size.factor), *size.names])


def _maybe(sizes: Sequence[Size | None] | None) -> tuple[Size | None, ...] | None:
    return None if sizes is None else tuple(sizes)


def product(sizes: Sequence[Size | None]) -> Size | None:
    """Return the product of ``sizes``, None if one is not known."""
    total = ONE
    for size in sizes:
        if size is None:
            return None
        total = total.times(size)
    return total


def numbers(elements: Sequence[Size | None] | None) -> list[int] | None:
    """Return ``elements`` as plain numbers, None unless all of them are."""
    if elements is None:
        return None
    found = [None if element is None else element.number for element in elements]
    return None if None in found else [number for number in found if number is not None]


Flows = Mapping[str, Flow]
