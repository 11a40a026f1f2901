"""Operators that remove or add elements at the ends of axes, and that select by a mask."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import (
    ONE,
    ROWS_NAME,
    ROWS_SIZE,
    STACKED_NAME,
    Flow,
    Kind,
    Size,
    Sizes,
    at_least,
    count,
    framed,
    known_elements,
    mixed,
    numbers,
    padded,
    rows,
    shape_tensor,
    shared,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, only_rows_of, position, rule, single, without_rows

#: A slice end from here on means "to the end".
_TO_THE_END = 2**31 - 1


@rule("Slice")
def slices(op: Operation) -> Result:
    """Slice other axes than the rows', or undo a reversal or concatenation of the rows."""
    flow = op.input(0)
    bad = worst(op.given())
    if bad is not None:
        return bad
    starts, ends = _slice_bounds(op, "starts", 1), _slice_bounds(op, "ends", 2)
    strides = [ONE] * len(starts or ()) if op.optional(4) is None else known_elements(op.input(4))
    if flow.shape is None or starts is None or ends is None or strides is None:
        kinds = {each.kind for each in op.given()}
        if Kind.ROWS in kinds:
            raise op.undecided("its bounds are not known")
        return count() if Kind.COUNT in kinds else shared(None if flow.shape is None else [None] * len(flow.shape))
    rank = len(flow.shape)
    axes = [position(op, axis, rank) for axis in op.axes(3) or range(len(starts))]
    if flow.kind is Kind.ROWS:
        return _sliced_rows(op, flow, axes, list(zip(starts, ends, strides, strict=True)))
    if flow.elements is not None and rank == 1:
        bounds = numbers([starts[0], ends[0], strides[0]])
        if bounds is not None:
            part = flow.elements[bounds[0] : bounds[1] : bounds[2]]
            length = [Size(len(part))]
            return shared(length, part) if flow.kind is Kind.SHARED else shape_tensor(length, part)
    sizes = [None if axis in axes else size for axis, size in enumerate(flow.shape)]
    counts = Kind.COUNT in {each.kind for each in op.given()}
    return count(sizes) if counts else shared(sizes)


def _slice_bounds(op: Operation, name: str, index: int) -> Sizes | None:
    listed = op.integers(name)
    return known_elements(op.input(index)) if listed is None else [Size(item) for item in listed]


def _sliced_rows(
    op: Operation, flow: Flow, axes: Sequence[int], bounds: Sequence[tuple[Size | None, Size | None, Size | None]]
) -> Flow:
    sizes = list(flow.shape or ())
    for axis, (start, end, step) in zip(axes, bounds, strict=True):
        if axis != flow.axis:
            if any(bound is not None and bound.counts_rows for bound in (start, end, step)):
                raise op.undecided("its bounds depend on the number of rows")
            sizes[axis] = _sliced_size(op, sizes[axis], axis, (start, end, step))
            continue
        whole = flow.size(axis)
        if whole is not None and step == ONE and _is_one_batch(whole, start, end):
            sizes[axis] = ROWS_SIZE
            continue
        to_the_end = end == whole or (end is not None and end.number is not None and end.number >= _TO_THE_END)
        if start == Size(0) and step == ONE and to_the_end:
            continue
        if (
            (start, step) == (Size(-1), Size(-1))
            and end is not None
            and end.number is not None
            and end.number < -_TO_THE_END
        ):
            sizes[axis] = None if whole is None or whole.frame is not None else whole.reversed
            continue
        # With constant elements around the rows, the part may be one that is equal in any batch.
        if numbers([start, end]) is not None and (whole is None or whole.frame is None):
            return mixed(f"{op.node} selects some of the rows")
        raise op.undecided("it may select some of the rows")
    return rows(flow.axis, sizes)


def _is_one_batch(whole: Size, start: Size | None, end: Size | None) -> bool:
    """Whether a slice selects exactly one of several batches, or the batch without the elements around it."""
    if whole.frame is not None:
        before, after = whole.frame
        is_end = end == Size(-after) if after else _is_the_end(whole, end)
        return whole == framed(before, after) and start == Size(before) and is_end
    if whole.names != (STACKED_NAME, ROWS_NAME):
        return False
    for copy in range(whole.factor):
        first = Size(0) if copy == 0 else Size(copy, (ROWS_NAME,))
        is_last = copy == whole.factor - 1
        if start == first and (end == Size(copy + 1, (ROWS_NAME,)) or (is_last and _is_the_end(whole, end))):
            return True
    return False


def _is_the_end(whole: Size | None, end: Size | None) -> bool:
    return end == whole or (end is not None and end.number is not None and end.number >= _TO_THE_END)


def _sliced_size(
    op: Operation, whole: Size | None, axis: int, bounds: tuple[Size | None, Size | None, Size | None]
) -> Size | None:
    start, end, step = bounds
    if whole is not None and whole.padding is not None:
        begins = numbers([start, step])
        if begins is None or begins[0] < 0 or begins[1] <= 0:
            raise op.undecided("it may count from the end of the largest row")
        number = None if end is None else end.number
        # Each row may have no element at all.
        is_within = start == Size(0) and step == ONE and number is not None and 0 < number <= whole.padding
        return end if is_within else padded(0, op.fresh(axis))
    if (start, step) == (Size(0), ONE) and _is_the_end(whole, end):
        return whole
    known = numbers([start, end, step])
    if whole is None or known is None or known[2] == 0:
        return op.fresh(axis)
    if whole.number is not None:
        return Size(len(range(whole.number)[known[0] : known[1] : known[2]]))
    return Size(known[1]) if known[0] == 0 and known[2] == 1 and 0 <= known[1] <= whole.least else op.fresh(axis)


@rule("Pad")
def pad(op: Operation) -> Result:
    """Pad other axes than the rows'."""
    flow = op.input(0)
    bad = worst(op.given())
    if bad is not None:
        return bad
    if flow.kind is not Kind.ROWS or flow.shape is None:
        return Flow(flow.kind)
    flow = only_rows_of(op, 0, op.given()[1:])
    listed = op.integers("pads") or numbers(op.input(1).elements)
    axes = range(len(flow.shape or ())) if op.optional(3) is None else (numbers(op.input(3).elements) or ())
    if listed is None or len(listed) != 2 * len(axes):
        raise op.undecided("its pads are not known")
    sizes = list(flow.shape or ())
    for index, axis in enumerate(axes):
        if not (listed[index] or listed[index + len(axes)]):
            continue
        place = position(op, axis, len(sizes))
        if place == flow.axis:
            raise op.undecided("it adds rows")
        sizes[place] = _with_more(op, sizes[place], place, (listed[index], listed[index + len(axes)]))
    return rows(flow.axis, sizes)


def _with_more(op: Operation, size: Size | None, axis: int, more: tuple[int, int]) -> Size:
    if size is not None and size.number is not None:
        return Size(max(size.number + sum(more), 0))
    return at_least(sum(more), op.fresh(axis)) if min(more) >= 0 else op.fresh(axis)


@rule("Trilu")
def triangle(op: Operation) -> Result:
    """Depends on the indices along the last two axes."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return replace(plain, shape=flow.shape)
    if flow.axis >= len(flow.shape or ()) - 2:
        return mixed(f"{op.node} depends on a row's index in the batch")
    return flow


@rule("Compress")
def compress(op: Operation) -> Result:
    """Select by a mask."""
    flow, condition = op.input(0), op.input(1)
    plain = without_rows([flow, condition])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rank = len(flow.shape or ())
    if condition.kind is Kind.SHARED and "axis" in op.node.attributes:
        axis = position(op, op.integer("axis", 0), rank)
        if axis != flow.axis:
            sizes = list(flow.shape or ())
            sizes[axis] = op.fresh("kept")
            return rows(flow.axis, sizes)
    return mixed(f"{op.node} drops rows")
