"""Operators that give constants and shapes, and those that fill or repeat to a shape."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.onnx_file import Tensor
from inferd.runtime.row_analysis.flow import (
    BLANK,
    FILLED,
    ONE,
    ONE_FIRST,
    ROWS_SIZE,
    Flow,
    Kind,
    Size,
    Sizes,
    count,
    numbers,
    product,
    rows,
    shape_tensor,
    shared,
    without_coordinates,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, rule, without_rows
from inferd.runtime.row_analysis.pointwise import broadcast_shape


@rule("Constant")
def constant(op: Operation) -> Result:
    """Keep small integers, and the shape of anything else."""
    for value in op.node.attributes.values():
        if isinstance(value, Tensor):
            return constant_flow(value)
        if isinstance(value, tuple):
            return shared([Size(len(value))], [Size(item) for item in value])
        if isinstance(value, int):
            return shared([], [Size(value)])
        if isinstance(value, str):
            return replace(shared([]), why="" if value else BLANK)
    return shared([] if "value_float" in op.node.attributes else None)


def constant_flow(tensor: Tensor) -> Flow:
    """Return the flow of a constant."""
    elements = None if tensor.integers is None else [Size(item) for item in tensor.integers]
    mark = BLANK if tensor.blank else ONE_FIRST if tensor.one_first else ""
    return replace(shared([Size(dim) for dim in tensor.dims], elements), why=mark)


@rule("Shape")
def shape(op: Operation) -> Result:
    """The sizes of the input, whatever its elements are."""
    flow = op.input(0)
    if flow.shape is None:
        raise op.undecided("the rank of its input is not known")
    named = [
        op.named(op.node.inputs[0], axis)
        if each is None and axis != flow.axis and flow.kind in {Kind.ROWS, Kind.SHARED}
        else each
        for axis, each in enumerate(flow.shape)
    ]
    sizes = named[op.integer("start", 0) : op.integer("end", len(named))]
    return shape_tensor([Size(len(sizes))], sizes)


@rule("Size")
def size(op: Operation) -> Result:
    """The number of elements of the input."""
    flow = op.input(0)
    return shape_tensor([], [None if flow.shape is None else product(flow.shape)])


@rule("Range")
def number_range(op: Operation) -> Result:
    """A range; from 0 to the number of rows it holds the indices of the rows."""
    flow = without_rows(op.given())
    if flow is None:
        raise op.undecided("its length depends on the rows")
    if flow.kind in {Kind.MIXED, Kind.UNKNOWN}:
        return flow
    start, stop, step = (op.input(index).elements for index in range(3))
    zero_to_n = start == (Size(0),) and step == (ONE,) and stop is not None
    length = stop[0] if zero_to_n and stop is not None else None
    if flow.kind is Kind.SHARED:
        return shared([op.fresh("length") if length is None else length])
    return Flow(Kind.COUNT, axis=0 if length == ROWS_SIZE else -1, shape=(length,))


@rule("Expand")
def expand(op: Operation) -> Result:
    """Broadcast to a shape; a shared value expanded along the rows is equal in each row."""
    flow, target = without_coordinates(op.input(0)), op.input(1)
    bad = worst([flow, target])
    if bad is not None:
        return bad
    sizes = target.elements
    if sizes is None:
        return _expanded_to_unknown(op, flow, target)
    shape = broadcast_shape([flow.shape, tuple(sizes)])
    if shape is None:
        raise op.undecided("the rank of its input is not known")
    if flow.kind is Kind.ROWS:
        place = flow.axis - len(flow.shape or ())
        theirs = sizes[place] if len(sizes) >= -place else ONE
        others = [size for at, size in enumerate(sizes) if at - len(sizes) != place]
        if theirs not in {ONE, flow.size(flow.axis)} or any(size is None or size.counts_rows for size in others):
            raise op.undecided("it may repeat the rows")
        shape[place] = flow.size(flow.axis)
        return rows(place, shape)
    if flow.kind is Kind.COUNT and flow.axis >= 0 and flow.shape is not None:
        place = flow.axis - len(flow.shape)
        if len(sizes) >= -place and sizes[place] in {ONE, flow.shape[flow.axis]}:
            shape[place] = flow.shape[flow.axis]
            return Flow(Kind.COUNT, axis=place % len(shape), shape=tuple(shape))
    return _filled(op, [flow, target], shape, [flow.size(axis - len(shape)) for axis in range(len(shape))])


def _expanded_to_unknown(op: Operation, flow: Flow, target: Flow) -> Flow:
    length = target.size(0)
    if flow.kind is Kind.SHARED and target.kind is Kind.SHARED:
        rank = None if length is None else length.number
        return shared(None if rank is None else [None] * rank)
    raise op.undecided("the new shape is not known")


def _filled(op: Operation, flows: Sequence[Flow], shape: Sizes, before: Sizes) -> Flow:
    """Return a value without rows repeated to ``shape``: it is constant along the rows."""
    blank = BLANK if flows[0].why == BLANK else ""
    if all(flow.kind is Kind.SHARED for flow in flows):
        return replace(shared(shape), why=blank)
    counting = [axis for axis, size in enumerate(shape) if size is not None and size.counts_rows]
    if flows[0].kind is Kind.SHARED and len(counting) == 1 and before[counting[0]] in {None, ONE} and None not in shape:
        return replace(rows(counting[0], shape), why=blank or FILLED)
    if None in shape:
        raise op.undecided("a size of the new shape is not known")
    return count(shape)


@rule("ConstantOfShape")
def constant_of_shape(op: Operation) -> Result:
    """A tensor filled with one value."""
    target = op.input(0)
    bad = worst([target])
    if bad is not None:
        return bad
    if target.elements is None:
        rank = target.size(0)
        if target.kind is Kind.SHARED:
            return shared(None if rank is None or rank.number is None else [None] * rank.number)
        raise op.undecided("the shape is not known")
    filled = _filled(op, [shared([]), target], list(target.elements), [ONE] * len(target.elements))
    value = op.tensor("value")
    fill = 0 if value is None else value.integers[0] if value.integers else None
    length = numbers(target.elements)
    if filled.kind is Kind.SHARED and fill is not None and length is not None and len(length) == 1 and length[0] <= 64:
        return shared(filled.shape, [Size(fill)] * length[0])
    return filled


@rule("Tile")
def tile(op: Operation) -> Result:
    """Repeat along each axis."""
    flow, repeats = op.input(0), op.input(1)
    bad = worst([flow, repeats])
    if bad is not None:
        return bad
    if flow.shape is None or repeats.elements is None:
        if flow.kind is repeats.kind is Kind.SHARED:
            return shared(None if flow.shape is None else [None] * len(flow.shape))
        raise op.undecided("its repeats are not known")
    sizes = [
        None if size is None or times is None else size.times(times)
        for size, times in zip(flow.shape, repeats.elements, strict=True)
    ]
    if flow.kind is Kind.ROWS:
        if repeats.elements[flow.axis] != ONE or repeats.kind is not Kind.SHARED:
            raise op.undecided("the rows are repeated")
        return rows(flow.axis, sizes)
    return _filled(op, [flow, repeats], sizes, flow.shape)
