"""Values of the graph analysis: what is known of a tensor, and of its sizes. Pure.

Theory. The analysis is an abstract interpretation. Each tensor of a graph gets a `Flow`, computed node by node from the
inputs on, by the rules in the other modules of this package. Its kind is one of

    SHARED     independent of the rows: constants, shared inputs, and what is computed from them
    COUNT      depends on the number of rows, not on their content: Shape(x)[0] and what is computed from it. With an
               ``axis``, it holds the indices of the rows along that axis, and thus selects each row itself
    ROWS       has the rows along ``axis``: each slice depends on its own row and on SHARED values only
    MIXED      an element depends on several rows or on their number
    UNKNOWN    not known: an operator without a rule, or a shape that could not be followed; ``doubtful`` if an operator
               that can mix rows has used it

The size of a ROWS value along ``axis`` is a multiple of the number of rows: [rows,4,8] reshaped to [rows*4,8] still has
each row in one piece. A `Size` is a product of a number and of names, so such a reshape can be followed there and back
without knowing any open dimension.

Unknown sizes get names of their own. Two sizes that must be equal for the model to run are taken to be equal, because
the model does run, with one row and with several: the verification tries that in any case.

If all outputs are ROWS, or SHARED for outputs without a batch axis, each row is computed from itself alone, for all
numbers. A MIXED output shows the opposite. In all other cases only trial runs can tell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

#: Name of the number of rows, and the same for rows in reverse order.
ROWS_NAME = "rows of the batch"
REVERSED_NAME = "rows of the batch, the last one first"
#: Name in a size along which several copies of the batch follow each other.
STACKED_NAME = "copies of the batch"
#: Prefix of the name of a size along which constant elements stand before and after the rows.
_FRAMED = f"{ROWS_NAME} and more: "
#: Prefix of the name of a size that is that of the largest row, to which the others are padded.
_PADDED = "elements of the largest row and more: "
#: Prefix of the name of an unknown size with a known minimum.
_AT_LEAST = "at least "


# Markers, kept in ``Flow.why`` of values that are neither MIXED nor UNKNOWN.
#: All elements along the rows are equal.
FILLED = "filled with one value"
#: Empty strings.
BLANK = "blank"
#: Floats of which the first is 1.
ONE_FIRST = "1 and more"
#: Strings of each row, followed by empty strings as padding.
FILLED_UP = "it is padded to the largest row"
#: Coordinates of which the first is the index of the row itself.
COORDINATES = "coordinates that begin with the row's own number"


@dataclass(frozen=True, slots=True)
class Size:
    """A dimension, or an element of a shape tensor: ``factor`` times the product of ``names``, which are sorted."""

    factor: int
    names: tuple[str, ...] = ()

    @property
    def number(self) -> int | None:
        """The size as a number, if it is the same in every run."""
        return None if self.names and self.factor else self.factor

    @property
    def counts_rows(self) -> bool:
        """Whether it depends on the number of rows."""
        return any(name.startswith(ROWS_NAME) for name in self.names)

    @property
    def frame(self) -> tuple[int, int] | None:
        """Constant elements before and after the rows; None if there are none."""
        for name in self.names:
            if name.startswith(_FRAMED):
                before, after = name.removeprefix(_FRAMED).split()
                return int(before), int(after)
        return None

    @property
    def padding(self) -> int | None:
        """Elements beyond those of the largest row; None if the size does not depend on the largest row."""
        found = [int(name.removeprefix(_PADDED).split()[0]) for name in self.names if name.startswith(_PADDED)]
        return min(found, default=None)

    @property
    def least(self) -> int:
        """The minimum, 0 if not known."""
        if self.number is not None:
            return self.number
        found = [int(name.removeprefix(_AT_LEAST).split()[0]) for name in self.names if name.startswith(_AT_LEAST)]
        return found[0] if len(self.names) == len(found) == 1 else 0

    @property
    def reversed(self) -> "Size":
        """The same size with the rows in the opposite order."""
        other = {ROWS_NAME: REVERSED_NAME, REVERSED_NAME: ROWS_NAME}
        return Size(self.factor, tuple(sorted(other.get(name, name) for name in self.names)))

    def times(self, other: "Size") -> "Size":
        """Return the product."""
        return Size(self.factor * other.factor, tuple(sorted(self.names + other.names)))

    def over(self, other: "Size") -> "Size | None":
        """Return the quotient if it is an integer for any values of the names, else None."""
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

#: A shape, or elements of one; None for a size that is not known.
Sizes = Sequence[Size | None]


def framed(before: int, after: int) -> Size:
    """Return the size of a batch with constant elements ``before`` and ``after`` it."""
    return Size(1, (f"{_FRAMED}{before} {after}",))


def padded(more: int, what: Size) -> Size:
    """Return the size of the largest row plus ``more``; ``what`` distinguishes such sizes."""
    return Size(1, (f"{_PADDED}{more} of {' '.join(what.names)}",))


def at_least(number: int, what: Size) -> Size:
    """Return the size named by ``what`` with the minimum ``number``."""
    return Size(1, (f"{_AT_LEAST}{number} of {' '.join(what.names)}",))


class Kind(Enum):
    """How a value depends on the rows; see the module docstring."""

    SHARED = "shared"
    COUNT = "count"
    ROWS = "rows"
    MIXED = "mixed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Flow:
    """What is known of one tensor.

    ``shape`` has None for an unknown size and is None for an unknown rank. ``elements`` are those of a small integer
    tensor, None where unknown. ``why`` says what mixes the rows or what is unknown, or is one of the markers.
    """

    kind: Kind
    axis: int = -1
    shape: tuple[Size | None, ...] | None = None
    elements: tuple[Size | None, ...] | None = None
    why: str = ""
    doubtful: bool = False

    @property
    def rank(self) -> int | None:
        """The number of dimensions, None if not known."""
        return None if self.shape is None else len(self.shape)

    def size(self, axis: int) -> Size | None:
        """Return the size along ``axis``, None if not known."""
        return None if self.shape is None or not -len(self.shape) <= axis < len(self.shape) else self.shape[axis]

    @property
    def is_padded(self) -> bool:
        """Whether rows are padded to the largest row."""
        return any(size is not None and size.padding is not None for size in self.shape or ())

    @property
    def is_exact(self) -> bool:
        """Whether each index along the batch axis is one row."""
        return self.kind is Kind.ROWS and self.size(self.axis) == ROWS_SIZE

    @property
    def is_plain(self) -> bool:
        """Whether each index along the batch axis is one row, given as many output rows as input rows."""
        size = self.size(self.axis)
        names = () if size is None else size.names
        is_whole = size is not None and size.factor == 1 and STACKED_NAME not in names
        return self.kind is Kind.ROWS and is_whole and ROWS_NAME in names


def shared(shape: Sequence[Size | None] | None = None, elements: Sequence[Size | None] | None = None) -> Flow:
    """Return a SHARED value."""
    return Flow(Kind.SHARED, shape=_maybe(shape), elements=_maybe(elements))


def count(shape: Sequence[Size | None] | None = None, elements: Sequence[Size | None] | None = None) -> Flow:
    """Return a COUNT value."""
    return Flow(Kind.COUNT, shape=_maybe(shape), elements=_maybe(elements))


def rows(axis: int, shape: Sequence[Size | None]) -> Flow:
    """Return a ROWS value with the rows along ``axis`` of ``shape``; a negative axis counts from the end."""
    return Flow(Kind.ROWS, axis=axis % len(shape), shape=tuple(shape))


def mixed(why: str) -> Flow:
    """Return a MIXED value."""
    return Flow(Kind.MIXED, why=why)


def unknown(why: str) -> Flow:
    """Return an UNKNOWN value."""
    return Flow(Kind.UNKNOWN, why=why)


def worst(flows: Sequence[Flow]) -> Flow | None:
    """Return the first MIXED value, else the first doubtful one, else the first UNKNOWN one, else None.

    Its shape is dropped, because the result of the operator may have another one.
    """
    bad = [flow for flow in flows if flow.kind in {Kind.MIXED, Kind.UNKNOWN}]
    found = min(bad, key=lambda flow: 0 if flow.kind is Kind.MIXED else 1 if flow.doubtful else 2, default=None)
    return None if found is None else replace(found, shape=None, elements=None)


def joined(one: Flow, other: Flow, why: str) -> Flow:
    """Return what holds for a value that is either ``one`` or ``other``; ``why`` names the operator."""
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
    """Return the size of two broadcast dimensions, None if it may depend on the number of rows."""
    if one == other:
        return one
    if one is None or other is None or one.counts_rows or other.counts_rows:
        return None
    return Size(1, (" or ".join(sorted({_described(one), _described(other)})),))


def same_rows(one: Size | None, other: Size | None) -> bool:
    """Whether two sizes along the rows are equal in a model that runs: if they can be, they must be."""
    if one is None or other is None or one.factor != other.factor:
        return False
    return _order(one) == _order(other)


def _order(size: Size) -> set[str]:
    """Return the names that determine the order of the rows along ``size``."""
    return {name for name in size.names if name == STACKED_NAME or name.startswith(ROWS_NAME)}


def _described(size: Size) -> str:
    return " ".join([str(size.factor), *size.names])


def _maybe(sizes: Sequence[Size | None] | None) -> tuple[Size | None, ...] | None:
    return None if sizes is None else tuple(sizes)


def product(sizes: Sequence[Size | None]) -> Size | None:
    """Return the product of ``sizes``, None if one is unknown."""
    total = ONE
    for size in sizes:
        if size is None:
            return None
        total = total.times(size)
    return total


def numbers(elements: Sequence[Size | None] | None) -> list[int] | None:
    """Return ``elements`` as integers, None unless all are known numbers."""
    if elements is None:
        return None
    found = [None if element is None else element.number for element in elements]
    return None if None in found else [number for number in found if number is not None]


def shape_tensor(shape: Sizes, elements: Sizes) -> Flow:
    """Return a tensor of sizes: COUNT if an element follows from the number of rows, else SHARED."""
    elements = [None if each is None else each.reversed if REVERSED_NAME in each.names else each for each in elements]
    counts = any(element is None or element.counts_rows for element in elements)
    return count(shape, elements) if counts else shared(shape, elements)


def without_coordinates(flow: Flow) -> Flow:
    """Return ``flow`` without the fact that it holds the coordinates of rows, which a change of shape loses."""
    return replace(flow, axis=-1, why="") if flow.why == COORDINATES else flow


def known_elements(flow: Flow) -> Sizes | None:
    """Return the elements of ``flow``; None if an unknown one may depend on the number of rows."""
    return None if flow.kind is not Kind.SHARED and None in (flow.elements or ()) else flow.elements
