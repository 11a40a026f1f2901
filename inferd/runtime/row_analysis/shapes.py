"""Operators that move elements without changing them, and those that compute with shapes."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.onnx_file import Tensor
from inferd.runtime.row_analysis.flow import (
    ONE,
    REVERSED_NAME,
    ROWS_NAME,
    ROWS_SIZE,
    STACKED_NAME,
    Flow,
    Kind,
    Size,
    at_least,
    count,
    either,
    framed,
    joined,
    mixed,
    numbers,
    padded,
    product,
    rows,
    same_rows,
    shared,
    unknown,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, only_rows_of, position, rule, single, without_rows
from inferd.runtime.row_analysis.pointwise import broadcast_shape

#: Ends of slices from here on mean "to the end".
_TO_THE_END = 2**31 - 1

#: Marks a value that is the same everywhere along the rows.
FILLED = "filled with one value"
#: Marks texts without letters.
BLANK = "blank"
#: Marks floats the first of which is 1.
ONE_FIRST = "1 and more"
#: Marks texts of which each row has its own and then as many blank ones as it takes.
FILLED_UP = "it is padded to the largest row"
#: Marks coordinates of which the first is the number of the row that they are for.
COORDINATES = "coordinates that begin with the row's own number"

Sizes = Sequence[Size | None]


@rule("Constant")
def constant(op: Operation) -> Result:
    """Small integers are kept, of anything else the shape."""
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
    """Return what is known of a constant."""
    elements = None if tensor.integers is None else [Size(item) for item in tensor.integers]
    mark = BLANK if tensor.blank else ONE_FIRST if tensor.one_first else ""
    return replace(shared([Size(dim) for dim in tensor.dims], elements), why=mark)


@rule("Shape")
def shape(op: Operation) -> Result:
    """The sizes of the input, which say nothing of its elements."""
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
    return _sizes([Size(len(sizes))], sizes)


@rule("Size")
def size(op: Operation) -> Result:
    """The number of elements of the input."""
    flow = op.input(0)
    return _sizes([], [None if flow.shape is None else product(flow.shape)])


def _sizes(of: Sizes, elements: Sizes) -> Flow:
    elements = [None if each is None else each.reversed if REVERSED_NAME in each.names else each for each in elements]
    counts = any(element is None or element.counts_rows for element in elements)
    return count(of, elements) if counts else shared(of, elements)


@rule("Reshape")
def reshape(op: Operation) -> Result:
    """Rows stay together if what stands before them is the same as before."""
    flow, given = op.input(0), op.integers("shape")
    target = op.input(1) if given is None else shared([Size(len(given))], list(map(Size, given)))
    elements = _known(target)
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
    return reshaped(op, flow, _with_the_rest(op, flow, sizes))


def _with_the_rest(op: Operation, flow: Flow, sizes: Sizes) -> list[Size | None]:
    """Work out the one size that is given as -1."""
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
    """Return the size that is left for the rows where it does not follow from the others.

    The model runs with a single row, so that the parts that it is cut into are whole parts of one row.
    """
    if product(before) != product((flow.shape or ())[: flow.axis]) or product(before) is None:
        return None
    rows_size = flow.size(flow.axis)
    if rows_size is None:
        return None
    turned = REVERSED_NAME in rows_size.names
    return (ROWS_SIZE.reversed if turned else ROWS_SIZE).times(op.fresh("parts"))


def reshaped(op: Operation, flow: Flow, sizes: Sizes) -> Flow:
    """Return ``flow`` in the shape of ``sizes``, its elements in the same order."""
    if flow.kind in {Kind.MIXED, Kind.UNKNOWN}:
        return replace(flow, shape=tuple(sizes))
    if flow.kind is Kind.COUNT and flow.axis >= 0 and flow.shape is not None:
        # The rows' own numbers keep their order as rows do.
        moved = reshaped(op, rows(flow.axis, flow.shape), sizes)
        return _without_coordinates(replace(flow, axis=moved.axis, shape=moved.shape))
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
                return rows(axis, [*sizes[:axis], _rows_again(op, flow, size), *sizes[axis + 1 :]])
            raise op.undecided("the rows come out in another order")
    raise op.undecided("it is not known where the rows are afterwards")


def _rows_again(op: Operation, flow: Flow, size: Size) -> Size:
    """Return ``size`` along the rows with what is known of their order."""
    own = flow.size(flow.axis)
    if own is None:
        raise op.undecided("it is not known how the rows stand")
    if own == size:
        return size
    if STACKED_NAME in own.names or own.frame is not None:
        raise op.undecided("what stands beside a batch is taken for a part of it")
    return size.reversed if REVERSED_NAME in own.names and REVERSED_NAME not in size.names else size


def _without_coordinates(flow: Flow) -> Flow:
    """Return ``flow`` without what is said of the rows' numbers if there are others beside them."""
    return replace(flow, axis=-1, why="") if flow.why == COORDINATES else flow


@rule("Flatten")
def flatten(op: Operation) -> Result:
    """Two dimensions, cut before ``axis``."""
    flow = op.input(0)
    if flow.shape is None:
        return flow
    axis = op.integer("axis", 1)
    axis += len(flow.shape) if axis < 0 else 0
    return reshaped(op, flow, [product(flow.shape[:axis]), product(flow.shape[axis:])])


@rule("Transpose")
def transpose(op: Operation) -> Result:
    """The rows go where the permutation says."""
    flow = op.input(0)
    if flow.shape is None:
        return flow
    flow = _without_coordinates(flow)
    assert flow.shape is not None
    order = op.integers("perm") or tuple(reversed(range(len(flow.shape))))
    sizes = [flow.shape[axis] for axis in order]
    axis = order.index(flow.axis) if flow.axis >= 0 else -1
    return replace(flow, axis=axis, shape=tuple(sizes), elements=None)


@rule("Squeeze")
def squeeze(op: Operation) -> Result:
    """Take out dimensions of one element."""
    flow, axes = op.input(0), op.axes(1)
    if flow.shape is None:
        return flow
    if axes is None and flow.kind is Kind.ROWS:
        raise op.undecided("a batch of one row is squeezed as well")
    flow = _without_coordinates(flow)
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
    """Put in dimensions of one element."""
    flow, axes = op.input(0), op.axes(1)
    if flow.shape is None or axes is None:
        return flow if flow.kind is not Kind.ROWS else unknown(f"{op.node}: unknown axes")
    flow = _without_coordinates(flow)
    assert flow.shape is not None
    rank = len(flow.shape) + len(axes)
    new = {position(op, axis, rank) for axis in axes}
    old = iter(flow.shape)
    sizes = [ONE if axis in new else next(old) for axis in range(rank)]
    axis = [each for each in range(rank) if each not in new][flow.axis] if flow.axis >= 0 else -1
    return replace(flow, axis=axis, shape=tuple(sizes))


@rule("Expand")
def expand(op: Operation) -> Result:
    """Lay the input over a shape; what is shared and gets the rows' size is the same in each row."""
    flow, target = _without_coordinates(op.input(0)), op.input(1)
    bad = worst([flow, target])
    if bad is not None:
        return bad
    sizes = target.elements
    if sizes is None:
        return _expanded_somehow(op, flow, target)
    shape = broadcast_shape([flow.shape, tuple(sizes)])
    if shape is None:
        raise op.undecided("the rank of its input is not known")
    if flow.kind is Kind.ROWS:
        place = flow.axis - len(flow.shape or ())
        theirs = sizes[place] if len(sizes) >= -place else ONE
        others = [size for at, size in enumerate(sizes) if at - len(sizes) != place]
        if theirs not in {ONE, flow.size(flow.axis)} or any(size is None or size.counts_rows for size in others):
            raise op.undecided("it is not known what it does to the rows")
        shape[place] = flow.size(flow.axis)
        return rows(place, shape)
    if flow.kind is Kind.COUNT and flow.axis >= 0 and flow.shape is not None:
        place = flow.axis - len(flow.shape)
        if len(sizes) >= -place and sizes[place] in {ONE, flow.shape[flow.axis]}:
            shape[place] = flow.shape[flow.axis]
            return Flow(Kind.COUNT, axis=place % len(shape), shape=tuple(shape))
    return _filled(op, [flow, target], shape, [flow.size(axis - len(shape)) for axis in range(len(shape))])


def _expanded_somehow(op: Operation, flow: Flow, target: Flow) -> Flow:
    length = target.size(0)
    if flow.kind is Kind.SHARED and target.kind is Kind.SHARED:
        rank = None if length is None else length.number
        return shared(None if rank is None else [None] * rank)
    raise op.undecided("the new shape is not known")


def _filled(op: Operation, flows: Sequence[Flow], shape: Sizes, before: Sizes) -> Flow:
    """Return a value without rows that is repeated to ``shape``: along the rows it is the same everywhere."""
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
    """One value everywhere."""
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
    value = op.node.attributes.get("value")
    fill = 0 if value is None else value.integers[0] if isinstance(value, Tensor) and value.integers else None
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
        raise op.undecided("how often it repeats is not known")
    sizes = [
        None if size is None or times is None else size.times(times)
        for size, times in zip(flow.shape, repeats.elements, strict=True)
    ]
    if flow.kind is Kind.ROWS:
        if repeats.elements[flow.axis] != ONE or repeats.kind is not Kind.SHARED:
            raise op.undecided("the rows are repeated")
        return rows(flow.axis, sizes)
    return _filled(op, [flow, repeats], sizes, flow.shape)


@rule("Range")
def number_range(op: Operation) -> Result:
    """Numbers in a row; those up to the number of rows are the rows' places."""
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


@rule("Concat")
def concat(op: Operation) -> Result:
    """One behind the other, along another axis than the rows'."""
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
    """Return rows that stand next to each other, or batches that stand one behind the other."""
    beside_others = _beside_others(op, flows)
    if beside_others or axis == flows[0].axis:
        return mixed(beside_others) if beside_others else _stacked(op, flows)
    sizes = list(flows[0].shape or ())
    along = [flow.size(axis) for flow in flows]
    if _shows_padding(along, flows):
        return mixed(f"{op.node} puts something behind the end of the largest row")
    sizes[axis] = _total(along) or _padded_total(op, along) or op.fresh("concat")
    return rows(flows[0].axis, sizes)


def _beside_others(op: Operation, flows: Sequence[Flow]) -> str:
    """Say what puts rows beside other rows than themselves, if anything does."""
    if any(flow.axis != flows[0].axis for flow in flows):
        return f"{op.node} puts rows beside those of other axes"
    sizes = [flow.size(flow.axis) for flow in flows]
    if all(same_rows(size, sizes[0]) for size in sizes):
        return ""
    if any(size is not None and REVERSED_NAME in size.names for size in sizes):
        return f"{op.node} puts rows beside others"
    raise op.undecided("rows come in parts of different sizes")


def _framed(op: Operation, flows: Sequence[Flow], axis: int) -> Flow:
    """Return one batch with something shared before or behind it, which `slices` cuts off again."""
    place = next(number for number, flow in enumerate(flows) if flow.kind is Kind.ROWS)
    own, before, behind = flows[place], flows[:place], flows[place + 1 :]
    more = [numbers([flow.size(axis) for flow in each]) for each in (before, behind)]
    all_shared = all(flow.kind is Kind.SHARED for flow in (*before, *behind))
    if more[0] is None or more[1] is None or not all_shared or axis != own.axis or not own.is_exact or own.is_padded:
        raise op.undecided("rows stand beside something else")
    sizes = list(own.shape or ())
    sizes[axis] = framed(sum(more[0]), sum(more[1]))
    return rows(axis, sizes)


def _stacked(op: Operation, flows: Sequence[Flow]) -> Flow:
    """Return several batches one behind the other, which `slices` and `split` take apart again."""
    if not all(flow.is_exact for flow in flows):
        raise op.undecided("rows stand behind rows")
    axis, sizes = flows[0].axis, list(_joined_sizes(flows))
    sizes[axis] = Size(len(flows), (STACKED_NAME, ROWS_NAME))
    return rows(axis, sizes)


def _joined_sizes(flows: Sequence[Flow]) -> Sequence[Size | None]:
    shape = flows[0].shape or ()
    for flow in flows[1:]:
        shape = tuple(either(one, other) for one, other in zip(shape, flow.shape or (), strict=True))
    return shape


def _are_coordinates(flows: Sequence[Flow]) -> bool:
    """Whether the first of ``flows`` has the rows' own numbers where the others have the rows."""
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
        # What is not known of a shared one is the same for every row.
        named = [
            op.fresh(f"{number} {index}") if element is None and flow.kind is Kind.SHARED else element
            for index, element in enumerate(flow.elements)
        ]
        elements = [*elements, *named]
    if elements is not None:
        return _sizes([Size(len(elements))], elements) if counts else shared([Size(len(elements))], elements)
    if rank is None:
        return count() if counts else shared()
    sizes = list(flows[0].shape or ())
    sizes[axis] = _total([flow.size(axis) for flow in flows])
    return count(sizes) if counts else shared(sizes)


def _shows_padding(sizes: Sizes, flows: Sequence[Flow]) -> bool:
    """Whether anything but more of the same padding stands behind what is padded to the largest row."""
    first = next((at for at, size in enumerate(sizes) if size is not None and size.padding is not None), len(sizes))
    behind = flows[first + 1 :]
    return bool(behind) and (flows[first].why != FILLED_UP or any(flow.why != BLANK for flow in behind))


def _padded_total(op: Operation, sizes: Sizes) -> Size | None:
    """Return the size of what is padded to the largest row with more behind it, None if that is not what it is."""
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
    """Cut along another axis than the rows'."""
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


@rule("Slice")
def slices(op: Operation) -> Result:
    """Take a part along other axes than the rows'."""
    flow = op.input(0)
    bad = worst(op.given())
    if bad is not None:
        return bad
    starts, ends = _slice_bounds(op, "starts", 1), _slice_bounds(op, "ends", 2)
    strides = [ONE] * len(starts or ()) if op.optional(4) is None else _known(op.input(4))
    if flow.shape is None or starts is None or ends is None or strides is None:
        kinds = {each.kind for each in op.given()}
        if Kind.ROWS in kinds:
            raise op.undecided("what it takes is not known")
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
            return shared(length, part) if flow.kind is Kind.SHARED else _sizes(length, part)
    sizes = [None if axis in axes else size for axis, size in enumerate(flow.shape)]
    counts = Kind.COUNT in {each.kind for each in op.given()}
    return count(sizes) if counts else shared(sizes)


def _slice_bounds(op: Operation, name: str, index: int) -> Sizes | None:
    listed = op.integers(name)
    return _known(op.input(index)) if listed is None else [Size(item) for item in listed]


def _known(flow: Flow) -> Sizes | None:
    """Return the elements of ``flow``; None unless those that are not known are the same for any number of rows."""
    return None if flow.kind is not Kind.SHARED and None in (flow.elements or ()) else flow.elements


def _sliced_rows(
    op: Operation, flow: Flow, axes: Sequence[int], bounds: Sequence[tuple[Size | None, Size | None, Size | None]]
) -> Flow:
    sizes = list(flow.shape or ())
    for axis, (start, end, step) in zip(axes, bounds, strict=True):
        if axis != flow.axis:
            if any(bound is not None and bound.counts_rows for bound in (start, end, step)):
                raise op.undecided("how much it takes depends on the number of rows")
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
        # In a frame, the part may be one that is the same in any batch.
        if numbers([start, end]) is not None and (whole is None or whole.frame is None):
            return mixed(f"{op.node} takes some of the rows")
        raise op.undecided("it may take some of the rows")
    return rows(flow.axis, sizes)


def _is_one_batch(whole: Size, start: Size | None, end: Size | None) -> bool:
    """Whether a slice takes exactly one batch of several that stand one behind the other, or of one with a frame."""
    if whole.frame is not None:
        before, behind = whole.frame
        is_end = end == Size(-behind) if behind else _is_the_end(whole, end)
        return whole == framed(before, behind) and start == Size(before) and is_end
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
        # Even of one element it is not certain that each row has it.
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
    """Add elements at the ends of other axes than the rows'."""
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
        raise op.undecided("how much it pads is not known")
    sizes = list(flow.shape or ())
    for index, axis in enumerate(axes):
        if not (listed[index] or listed[index + len(axes)]):
            continue
        place = position(op, axis, len(sizes))
        if place == flow.axis:
            raise op.undecided("rows are added")
        sizes[place] = _with_more(op, sizes[place], place, (listed[index], listed[index + len(axes)]))
    return rows(flow.axis, sizes)


def _with_more(op: Operation, size: Size | None, axis: int, more: tuple[int, int]) -> Size:
    if size is not None and size.number is not None:
        return Size(max(size.number + sum(more), 0))
    return at_least(sum(more), op.fresh(axis)) if min(more) >= 0 else op.fresh(axis)


@rule("DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "CenterCropPad", "GridSample")
def within_pictures(op: Operation) -> Result:
    """Pictures of [rows,channels,...], each by itself."""
    flows = [op.input(0), *op.given(1)] if op.node.operator == "GridSample" else [op.input(0)]
    bad = without_rows(op.given())
    if bad is not None:
        return Flow(bad.kind, why=bad.why)
    if any(flow.kind is not Kind.ROWS or flow.axis != 0 for flow in flows):
        raise op.undecided("the rows are not its first dimension")
    crops = op.text("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crops or op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise op.undecided("it may change how many rows there are")
    for index, flow in enumerate(op.inputs):
        if index >= len(flows) and flow is not None and not _leaves_rows(op, index, flow):
            raise op.undecided("it may depend on the number of rows")
    shape = flows[0].shape or ()
    known = _picture_sizes(op, shape)
    return rows(0, [shape[0], *(known.get(axis) or op.fresh(axis) for axis in range(1, len(shape)))])


def _picture_sizes(op: Operation, shape: Sizes) -> dict[int, Size | None]:
    """Return the sizes that pictures of ``shape`` come out with, by axis, where they follow from what they are."""
    if op.node.operator == "GridSample":
        return {1: shape[1], **dict(enumerate((op.input(1).shape or ())[1:-1], start=2))}
    if op.node.operator not in {"DepthToSpace", "SpaceToDepth"}:
        return {}
    block = Size(op.integer("blocksize", 0))
    area, deeper = block.times(block), op.node.operator == "SpaceToDepth"
    scales = {1: (area, deeper), 2: (block, not deeper), 3: (block, not deeper)}
    found: dict[int, Size | None] = {}
    for axis, (scale, grows) in scales.items():
        size = shape[axis]
        found[axis] = None if size is None else size.times(scale) if grows else size.over(scale)
    return found


def _leaves_rows(op: Operation, index: int, flow: Flow) -> bool:
    """Whether input ``index`` says how large pictures become, and of the rows nothing but how many there are."""
    operator, data = op.node.operator, op.input(0)
    axes = [position(op, axis, len(data.shape or ())) for axis in op.integers("axes") or (0,)]
    # What is cut out before is not looked at without `crops`, and before operator set 11 there was no such input.
    is_region = (operator, index) == ("Resize", 1) and op.opset >= 11
    if is_region or 0 not in axes or flow.shape == (Size(0),):
        return flow.kind is Kind.SHARED
    if (operator, index) in {("Resize", 3), ("CenterCropPad", 1)}:
        return flow.kind is Kind.COUNT and axes[0] == 0 and _keeps_rows(flow.elements, data.size(0))
    return flow.kind is Kind.SHARED and axes[0] == 0 and flow.why == ONE_FIRST


def _keeps_rows(sizes: Sizes | None, own: Size | None) -> bool:
    """Whether a shape has the size of the rows first and nothing that follows from their number elsewhere."""
    if not sizes or own is None or sizes[0] != own:
        return False
    return not any(size is None or size.counts_rows for size in sizes[1:])


@rule("SequenceConstruct", "SequenceAt", "SequenceInsert", "SequenceErase")
def sequence(op: Operation) -> Result:
    """Of a sequence it is known what any of its tensors is."""
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
    """The tensors of a sequence one behind the other, or along a new axis."""
    flow, axis = op.input(0), op.integer("axis", 0)
    if flow.kind is not Kind.ROWS or flow.shape is None:
        return Flow(flow.kind, why=flow.why)
    if op.integer("new_axis", 0):
        axis = position(op, axis, len(flow.shape) + 1)
        sizes = [*flow.shape[:axis], op.fresh("count"), *flow.shape[axis:]]
        return rows(flow.axis + (axis <= flow.axis), sizes)
    axis = position(op, axis, len(flow.shape))
    if axis == flow.axis:
        raise op.undecided("rows stand behind rows")
    return rows(flow.axis, [op.fresh("total") if at == axis else size for at, size in enumerate(flow.shape)])


@rule("SequenceLength")
def sequence_length(op: Operation) -> Result:
    """It is not known to be the same for any number of rows."""
    raise op.undecided("it may depend on the number of rows")


@rule("Trilu")
def triangle(op: Operation) -> Result:
    """Depends on the places along the last two axes."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return replace(plain, shape=flow.shape)
    if flow.axis >= len(flow.shape or ()) - 2:
        return mixed(f"{op.node} depends on a row's place in the batch")
    return flow
