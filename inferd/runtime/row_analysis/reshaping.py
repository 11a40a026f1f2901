"""Operators that rearrange dimensions without changing elements: reshape, transpose, squeeze."""

from dataclasses import replace

from inferd.runtime.row_analysis.flow import (
    ONE,
    REVERSED_NAME,
    ROWS_SIZE,
    STACKED_NAME,
    Flow,
    Kind,
    Size,
    Sizes,
    known_elements,
    product,
    rows,
    shared,
    unknown,
    without_coordinates,
)
from inferd.runtime.row_analysis.operation import Operation, Result, position, rule, without_rows


@rule("Reshape")
def reshape(op: Operation) -> Result:
    """Rows stay in one piece if the product of the dimensions before them stays the same."""
    flow, given = op.input(0), op.integers("shape")
    target = op.input(1) if given is None else shared([Size(len(given))], list(map(Size, given)))
    elements = known_elements(target)
    if elements is None:
        plain = without_rows([flow, target])
        if plain is None:
            raise op.undecided("the new shape is not known")
        return plain
    zero_copies = op.integer("allowzero", 0) == 0
    sizes = [
        flow.size(index)
        if zero_copies and element == Size(0)
        else op.fresh(f"given {index}")
        if element is None
        else element
        for index, element in enumerate(elements)
    ]
    return reshaped(op, flow, _with_inferred_size(op, flow, sizes))


def _with_inferred_size(op: Operation, flow: Flow, sizes: Sizes) -> list[Size | None]:
    """Compute the size given as -1."""
    minus_one = Size(-1)
    if minus_one not in sizes or flow.shape is None:
        return [None if size == minus_one else size for size in sizes]
    total, others = product(flow.shape), product([size for size in sizes if size != minus_one])
    rest = None if total is None or others is None else total.over(others)
    place = sizes.index(minus_one)
    if rest is None and flow.kind is Kind.ROWS:
        if any(size is not None and size.counts_rows for size in sizes):
            rest = op.fresh("rest")
        elif None not in sizes:
            rest = _rows_in_parts(op, flow, sizes[:place])
    return [rest if size == minus_one else size for size in sizes]


def _rows_in_parts(op: Operation, flow: Flow, before: Sizes) -> Size | None:
    """Return the size along the rows where it does not follow from the others.

    The model runs with a single row, so each part is a whole part of one row.
    """
    if product(before) != product((flow.shape or ())[: flow.axis]) or product(before) is None:
        return None
    rows_size = flow.size(flow.axis)
    if rows_size is None:
        return None
    turned = REVERSED_NAME in rows_size.names
    return (ROWS_SIZE.reversed if turned else ROWS_SIZE).times(op.fresh("parts"))


def reshaped(op: Operation, flow: Flow, sizes: Sizes) -> Flow:
    """Return ``flow`` in the shape ``sizes``, its elements in the same order."""
    if flow.kind in {Kind.MIXED, Kind.UNKNOWN}:
        return replace(flow, shape=tuple(sizes))
    if flow.kind is Kind.COUNT and flow.axis >= 0 and flow.shape is not None:
        # Row indices keep their order as rows do.
        moved = reshaped(op, rows(flow.axis, flow.shape), sizes)
        return without_coordinates(replace(flow, axis=moved.axis, shape=moved.shape))
    if flow.kind is not Kind.ROWS or flow.shape is None:
        if any(size is not None and size.counts_rows for size in sizes) and flow.kind is Kind.SHARED:
            raise op.undecided("a shared input takes the shape of the rows")
        return Flow(flow.kind, shape=tuple(sizes), elements=flow.elements)
    before = product(flow.shape[: flow.axis])
    for axis, size in enumerate(sizes):
        if size is not None and size.counts_rows:
            same = product(sizes[:axis])
            unchanged = axis == flow.axis and tuple(sizes[:axis]) == flow.shape[:axis]
            if any(other is not None and other.counts_rows for other in sizes[axis + 1 :]):
                raise op.undecided("another size follows from the number of rows")
            if unchanged or (same is not None and same == before):
                return rows(axis, [*sizes[:axis], _rows_size(op, flow, size), *sizes[axis + 1 :]])
            raise op.undecided("it changes the order of the rows")
    raise op.undecided("the axis of the rows afterwards is not known")


def _rows_size(op: Operation, flow: Flow, size: Size) -> Size:
    """Return ``size`` along the rows with what is known of their order."""
    own = flow.size(flow.axis)
    if own is None:
        raise op.undecided("the order of the rows is not known")
    if own == size:
        return size
    if STACKED_NAME in own.names or own.frame is not None:
        raise op.undecided("elements beside the batch become a part of it")
    return size.reversed if REVERSED_NAME in own.names and REVERSED_NAME not in size.names else size


@rule("Flatten")
def flatten(op: Operation) -> Result:
    """Reshape to two dimensions, split at ``axis``."""
    flow = op.input(0)
    if flow.shape is None:
        return flow
    axis = op.integer("axis", 1)
    axis += len(flow.shape) if axis < 0 else 0
    return reshaped(op, flow, [product(flow.shape[:axis]), product(flow.shape[axis:])])


@rule("Transpose")
def transpose(op: Operation) -> Result:
    """Permute the dimensions."""
    flow = op.input(0)
    if flow.shape is None:
        return flow
    flow = without_coordinates(flow)
    assert flow.shape is not None
    order = op.integers("perm") or tuple(reversed(range(len(flow.shape))))
    sizes = [flow.shape[axis] for axis in order]
    axis = order.index(flow.axis) if flow.axis >= 0 else -1
    return replace(flow, axis=axis, shape=tuple(sizes), elements=None)


@rule("Squeeze")
def squeeze(op: Operation) -> Result:
    """Remove dimensions of size 1."""
    flow, axes = op.input(0), op.axes(1)
    if flow.shape is None:
        return flow
    if axes is None and flow.kind is Kind.ROWS:
        raise op.undecided("it squeezes a batch of one row as well")
    flow = without_coordinates(flow)
    assert flow.shape is not None
    rank = len(flow.shape)
    ones = {axis for axis, size in enumerate(flow.shape) if size == ONE}
    out = ones if axes is None else {position(op, axis, rank) for axis in axes}
    if flow.kind is Kind.ROWS and flow.axis in out:
        raise op.undecided("it works for a batch of one row only")
    sizes = [size for axis, size in enumerate(flow.shape) if axis not in out]
    axis = flow.axis - sum(each < flow.axis for each in out) if flow.axis >= 0 and flow.axis not in out else -1
    return replace(flow, axis=axis, shape=tuple(sizes))


@rule("Unsqueeze")
def unsqueeze(op: Operation) -> Result:
    """Insert dimensions of size 1."""
    flow, axes = op.input(0), op.axes(1)
    if flow.shape is None or axes is None:
        return flow if flow.kind is not Kind.ROWS else unknown(f"{op.node}: unknown axes")
    flow = without_coordinates(flow)
    assert flow.shape is not None
    rank = len(flow.shape) + len(axes)
    new = {position(op, axis, rank) for axis in axes}
    old = iter(flow.shape)
    sizes = [ONE if axis in new else next(old) for axis in range(rank)]
    axis = [each for each in range(rank) if each not in new][flow.axis] if flow.axis >= 0 else -1
    return replace(flow, axis=axis, shape=tuple(sizes))
