"""Operators that take or put elements by index: gather, scatter, one-hot, non-zero."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import (
    COORDINATES,
    FILLED,
    ONE,
    ROWS_SIZE,
    Flow,
    Kind,
    Size,
    mixed,
    numbers,
    product,
    rows,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, position, rule, single, without_rows


@rule("Gather")
def gather(op: Operation) -> Result:
    """Select slices of the first input by index."""
    data, indices = op.input(0), op.input(1)
    bad = worst([data, indices])
    if bad is not None:
        return bad
    axis = op.integer("axis", 0)
    if data.elements is not None and indices.elements is not None and data.rank == 1:
        return _selected_elements(data, indices)
    if data.shape is None or indices.shape is None:
        plain = without_rows([data, indices])
        if plain is None:
            raise op.undecided("a rank is not known")
        return plain
    axis = position(op, axis, len(data.shape))
    sizes = [*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]]
    if data.kind is Kind.ROWS:
        found = _gathered_rows(op, data, indices, axis, sizes)
        return found if found.kind is Kind.ROWS else replace(found, shape=tuple(sizes))
    if indices.kind is Kind.ROWS and data.kind is Kind.SHARED:
        return rows(axis + indices.axis, sizes)
    plain = without_rows([data, indices], sizes)
    if plain is None:
        raise op.undecided("it may depend on the number of rows")
    return plain


def _selected_elements(data: Flow, indices: Flow) -> Flow:
    found: list[Size | None] = []
    for index in indices.elements or ():
        number = None if index is None else index.number
        found.append(None if number is None or data.elements is None else data.elements[number])
    known = all(element is not None and not element.counts_rows for element in found)
    kind = Kind.SHARED if known else Kind.COUNT if Kind.COUNT in {data.kind, indices.kind} else Kind.SHARED
    return Flow(kind, shape=indices.shape, elements=tuple(found))


def _gathered_rows(op: Operation, data: Flow, indices: Flow, axis: int, sizes: Sequence[Size | None]) -> Flow:
    if axis == data.axis:
        if indices.kind is Kind.COUNT and indices.axis == 0 and indices.shape == (ROWS_SIZE,) and data.is_exact:
            return data
        own = data.size(axis)
        if indices.kind is Kind.COUNT or (own is not None and own.frame is not None):
            raise op.undecided("its indices of rows depend on the number of rows")
        return mixed(f"{op.node} selects rows by index")
    if indices.kind is Kind.ROWS:
        return mixed(f"{op.node} indexes each row for every other")
    if indices.kind is not Kind.SHARED:
        raise op.undecided("it may depend on the number of rows")
    size = data.size(axis)
    if size is not None and size.padding is not None:
        picked = numbers(indices.elements)
        if picked is None or min(picked, default=0) < 0:
            return mixed(f"{op.node} counts from the end of the largest row")
    shift = len(indices.shape or ()) - 1 if axis < data.axis else 0
    return rows(data.axis + shift, sizes)


@rule("GatherElements", "ScatterElements", "Scatter")
def by_elements(op: Operation) -> Result:
    """Select or update single elements along an axis."""
    flows = op.given()
    plain = without_rows(flows)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    first = flows[0]
    # With other sizes, parts of different rows would meet.
    own = first.size(first.axis)
    if own is None or any(
        (flow.kind, flow.axis, flow.size(flow.axis)) != (Kind.ROWS, first.axis, own) for flow in flows
    ):
        raise op.undecided("its inputs do not all have the rows on one axis")
    if position(op, op.integer("axis", 0), len(first.shape or ())) == first.axis:
        return mixed(f"{op.node} selects rows by index")
    return rows(first.axis, (flows[1] if op.node.operator == "GatherElements" else first).shape or ())


def _picks_each_row(indices: Flow) -> bool:
    """Whether coordinates begin with the index of their own row."""
    return indices.kind is Kind.COUNT and indices.why == COORDINATES and indices.axis == 0


@rule("GatherND")
def gather_nd(op: Operation) -> Result:
    """Select slices by several indices each."""
    data, indices = op.input(0), op.input(1)
    plain = without_rows([data, indices])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    shared_dims = op.integer("batch_dims", 0)
    if data.is_exact and data.axis == 0 and _picks_each_row(indices) and not shared_dims:
        looks = (indices.shape or ())[-1]
        if looks is None or looks.number is None:
            raise op.undecided("the number of its indices is not known")
        return rows(indices.axis, [*(indices.shape or ())[:-1], *(data.shape or ())[looks.number :]])
    if data.shape is None or indices.shape is None or indices.shape[-1] is None or indices.kind is not Kind.ROWS:
        raise op.undecided("the elements that it selects are not known")
    depth = indices.shape[-1].number
    # With several selections for each slice, ONNX Runtime does not check that there are as many slices as rows.
    as_many = data.size(data.axis) is not None and data.size(data.axis) == indices.size(indices.axis)
    both = data.kind is Kind.ROWS and data.axis == indices.axis < shared_dims and as_many
    table = data.kind is Kind.SHARED and indices.axis < len(indices.shape) - 1
    if depth is None or not (both or table):
        raise op.undecided("the elements that it selects are not known")
    return rows(indices.axis, [*indices.shape[:-1], *data.shape[shared_dims + depth :]])


@rule("ScatterND")
def scatter_nd(op: Operation) -> Result:
    """Update slices by index."""
    data, indices, updates = (op.input(index) for index in range(3))
    plain = without_rows([data, indices, updates])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    own = updates.kind is Kind.SHARED or (updates.is_exact and updates.axis == 0)
    if data.is_exact and data.axis == 0 and _picks_each_row(indices) and own:
        return data
    if data.kind is Kind.SHARED and Kind.ROWS in {indices.kind, updates.kind}:
        return mixed(f"{op.node} writes all rows into one tensor")
    raise op.undecided("the rows that it updates are not known")


@rule("OneHot")
def one_hot(op: Operation) -> Result:
    """A new axis with a one at the index."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rank = len(flow.shape or ()) + 1
    axis = position(op, op.integer("axis", -1), rank)
    sizes = list(flow.shape or ())
    sizes.insert(axis, op.fresh("depth"))
    return rows(flow.axis + (axis <= flow.axis), sizes)


@rule("NonZero", "Unique", "NonMaxSuppression")
def found_elements(op: Operation) -> Result:
    """The output size depends on what is found in all rows."""
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    flow = op.input(0)
    if op.node.operator == "NonZero" and flow.why == FILLED and flow.rank == 1 and flow.is_exact:
        # Some exporters write the range of the row indices like this.
        return Flow(Kind.COUNT, axis=1, shape=(ONE, flow.size(0)))
    return mixed(f"{op.node} gives as many elements as it finds in all rows together")


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def extract_features(op: Operation) -> Result:
    """Select elements along the last axis by index; those of all rows are concatenated."""
    table, indices = op.input(0), op.input(1)
    plain = without_rows([table, indices])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if table.kind is Kind.ROWS and indices.kind is Kind.SHARED and table.axis < len(table.shape or ()) - 1:
        return rows(table.axis, [*(table.shape or ())[:-1], op.fresh("taken")])
    outermost = product((indices.shape or ())[: indices.axis]) == ONE
    if table.kind is Kind.SHARED and table.rank == 1 and outermost:
        return rows(1, [ONE, product(indices.shape or ())])
    raise op.undecided("the axis of the rows afterwards is not known")
