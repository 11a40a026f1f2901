"""Operators that join and split tensors: concat, split, sequences."""

from collections.abc import Sequence

from inferd.runtime.row_analysis.flow import (
    BLANK,
    COORDINATES,
    FILLED_UP,
    ONE,
    REVERSED_NAME,
    ROWS_NAME,
    ROWS_SIZE,
    STACKED_NAME,
    Flow,
    Kind,
    Size,
    Sizes,
    count,
    either,
    framed,
    joined,
    mixed,
    numbers,
    padded,
    rows,
    same_rows,
    shape_tensor,
    shared,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, position, rule, single


@rule("Concat")
def concat(op: Operation) -> Result:
    """Concatenate along another axis than the rows', or along the rows as far as Slice and Split undo it."""
    flows = op.given()
    bad = worst(flows)
    if bad is not None:
        return bad
    axis = op.integer("axis", 1)
    ranks = {flow.rank for flow in flows}
    rank = ranks.pop() if len(ranks) == 1 else None
    with_rows = [flow for flow in flows if flow.kind is Kind.ROWS]
    if not with_rows:
        return _concat_without_rows(op, flows, axis, rank)
    if rank is not None and axis in {-1, rank - 1} and _are_coordinates(flows):
        sizes = list(flows[-1].shape or ())
        sizes[-1] = _total([flow.size(-1) for flow in flows])
        return Flow(Kind.COUNT, axis=flows[0].axis, shape=tuple(sizes), why=COORDINATES)
    axis = position(op, axis, rank or 0)
    return _concat_rows(op, flows, axis) if len(with_rows) == len(flows) else _framed(op, flows, axis)


def _concat_rows(op: Operation, flows: Sequence[Flow], axis: int) -> Flow:
    """Return rows joined side by side, or batches stacked one after the other."""
    misaligned = _misaligned(op, flows)
    if misaligned or axis == flows[0].axis:
        return mixed(misaligned) if misaligned else _stacked(op, flows)
    sizes = list(flows[0].shape or ())
    along = [flow.size(axis) for flow in flows]
    if _shows_padding(along, flows):
        return mixed(f"{op.node} appends something to the end of the largest row")
    sizes[axis] = _total(along) or _padded_total(op, along) or op.fresh("concat")
    return rows(flows[0].axis, sizes)


def _misaligned(op: Operation, flows: Sequence[Flow]) -> str:
    """Return why rows would be joined with other rows; empty if they are not."""
    if any(flow.axis != flows[0].axis for flow in flows):
        return f"{op.node} joins rows of different axes"
    sizes = [flow.size(flow.axis) for flow in flows]
    if all(same_rows(size, sizes[0]) for size in sizes):
        return ""
    if any(size is not None and REVERSED_NAME in size.names for size in sizes):
        return f"{op.node} joins rows with others"
    raise op.undecided("rows come in parts of different sizes")


def _framed(op: Operation, flows: Sequence[Flow], axis: int) -> Flow:
    """Return one batch with constant elements before or after it, which Slice removes again."""
    place = next(number for number, flow in enumerate(flows) if flow.kind is Kind.ROWS)
    own, before, after = flows[place], flows[:place], flows[place + 1 :]
    more = [numbers([flow.size(axis) for flow in each]) for each in (before, after)]
    all_shared = all(flow.kind is Kind.SHARED for flow in (*before, *after))
    if more[0] is None or more[1] is None or not all_shared or axis != own.axis or not own.is_exact or own.is_padded:
        raise op.undecided("it joins rows with something else")
    sizes = list(own.shape or ())
    sizes[axis] = framed(sum(more[0]), sum(more[1]))
    return rows(axis, sizes)


def _stacked(op: Operation, flows: Sequence[Flow]) -> Flow:
    """Return several copies of a batch in sequence, which Slice and Split separate again."""
    if not all(flow.is_exact for flow in flows):
        raise op.undecided("it joins rows along the rows")
    axis, sizes = flows[0].axis, list(_joined_sizes(flows))
    sizes[axis] = Size(len(flows), (STACKED_NAME, ROWS_NAME))
    return rows(axis, sizes)


def _joined_sizes(flows: Sequence[Flow]) -> Sequence[Size | None]:
    shape = flows[0].shape or ()
    for flow in flows[1:]:
        shape = tuple(either(one, other) for one, other in zip(shape, flow.shape or (), strict=True))
    return shape


def _are_coordinates(flows: Sequence[Flow]) -> bool:
    """Whether the first of ``flows`` holds the row indices along the axis of the others' rows."""
    first = flows[0]
    own = first.kind is Kind.COUNT and 0 <= first.axis < len(first.shape or ()) - 1 and not first.why
    exact = first.size(first.axis) == ROWS_SIZE and first.size(-1) == ONE
    return own and exact and all(flow.is_exact and flow.axis == first.axis for flow in flows[1:])


def _concat_without_rows(op: Operation, flows: Sequence[Flow], axis: int, rank: int | None) -> Flow:
    counts = any(flow.kind is Kind.COUNT for flow in flows)
    elements: list[Size | None] | None = []
    for number, flow in enumerate(flows):
        if elements is None or flow.elements is None or rank != 1:
            elements = None
            continue
        # An unknown element of a SHARED tensor is the same for every row.
        named = [
            op.fresh(f"{number} {index}") if element is None and flow.kind is Kind.SHARED else element
            for index, element in enumerate(flow.elements)
        ]
        elements = [*elements, *named]
    if elements is not None:
        return shape_tensor([Size(len(elements))], elements) if counts else shared([Size(len(elements))], elements)
    if rank is None:
        return count() if counts else shared()
    sizes = list(flows[0].shape or ())
    sizes[axis] = _total([flow.size(axis) for flow in flows])
    return count(sizes) if counts else shared(sizes)


def _shows_padding(sizes: Sizes, flows: Sequence[Flow]) -> bool:
    """Whether anything but more padding follows a part that is padded to the largest row."""
    first = next((at for at, size in enumerate(sizes) if size is not None and size.padding is not None), len(sizes))
    after = flows[first + 1 :]
    return bool(after) and (flows[first].why != FILLED_UP or any(flow.why != BLANK for flow in after))


def _padded_total(op: Operation, sizes: Sizes) -> Size | None:
    """Return the size of parts of which one is padded to the largest row; None if none is."""
    if all(size is None or size.padding is None for size in sizes):
        return None
    first, more = sizes[0], numbers(sizes[1:])
    sure = 0 if first is None or first.padding is None or more is None else first.padding + sum(more)
    return padded(sure, op.fresh("padded"))


def _total(sizes: Sizes) -> Size | None:
    found = numbers(sizes)
    return None if found is None else Size(sum(found))


@rule("Split", "SplitToSequence")
def split(op: Operation) -> Result:
    """Split along another axis than the rows', or into the batches that were concatenated."""
    flow, plain = op.input(0), single(op)
    if plain is not None or flow.shape is None:
        return flow if plain is None else Flow(plain.kind, why=plain.why)
    axis = position(op, op.integer("axis", 0), len(flow.shape))
    whole = flow.shape[axis]
    if axis == flow.axis:
        if whole == Size(len(op.node.outputs), (STACKED_NAME, ROWS_NAME)) and len(op.inputs) == 1:
            return rows(axis, [ROWS_SIZE if at == axis else size for at, size in enumerate(flow.shape)])
        raise op.undecided("the rows are split")
    if op.node.operator == "SplitToSequence":
        sizes = [op.fresh("part") if at == axis else size for at, size in enumerate(flow.shape)]
        if len(op.inputs) > 1 or op.integer("keepdims", 1):
            return rows(flow.axis, sizes)
        del sizes[axis]
        return rows(flow.axis - (axis < flow.axis), sizes)
    listed = op.integers("split") or (None if op.optional(1) is None else numbers(op.input(1).elements))
    parts = len(op.node.outputs)
    if listed is None and whole is not None and whole.number is not None and whole.number % parts == 0:
        listed = [whole.number // parts] * parts
    results = []
    for index in range(parts):
        sizes = list(flow.shape)
        sizes[axis] = op.fresh(index) if listed is None else Size(listed[index])
        results.append(rows(flow.axis, sizes))
    return results


@rule("SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceErase")
def sequence(op: Operation) -> Result:
    """A sequence has the flow that holds for each of its tensors."""
    flows = [flow for flow in op.given() if flow.kind is not Kind.SHARED] or op.given()
    bad = worst(flows)
    if bad is not None:
        return bad
    found = flows[0]
    for flow in flows[1:]:
        found = joined(found, flow, str(op.node))
    return found


@rule("ConcatFromSequence")
def concat_from_sequence(op: Operation) -> Result:
    """Concatenate the tensors of a sequence, or stack them along a new axis."""
    flow, axis = op.input(0), op.integer("axis", 0)
    if flow.kind is not Kind.ROWS or flow.shape is None:
        return Flow(flow.kind, why=flow.why)
    if op.integer("new_axis", 0):
        axis = position(op, axis, len(flow.shape) + 1)
        sizes = [*flow.shape[:axis], op.fresh("count"), *flow.shape[axis:]]
        return rows(flow.axis + (axis <= flow.axis), sizes)
    axis = position(op, axis, len(flow.shape))
    if axis == flow.axis:
        raise op.undecided("it joins rows along the rows")
    return rows(flow.axis, [op.fresh("total") if at == axis else size for at, size in enumerate(flow.shape)])


@rule("SequenceLength")
def sequence_length(op: Operation) -> Result:
    """Undecided: the length may depend on the number of rows."""
    raise op.undecided("it may depend on the number of rows")
