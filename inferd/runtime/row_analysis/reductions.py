"""Operators that look along axes: sums, norms, orders, positions. They mix rows where they look along the rows."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import (
    ONE,
    ROWS_SIZE,
    Flow,
    Kind,
    Size,
    mixed,
    numbers,
    padded,
    rows,
    shared,
    worst,
)
from inferd.runtime.row_analysis.operation import Operation, Result, position, rule, single, without_rows
from inferd.runtime.row_analysis.shapes import COORDINATES, FILLED, FILLED_UP

_REDUCTIONS = (  # noqa: SIM905  (as in `pointwise`)
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
).split()


def _along_rows(op: Operation, shape: Sequence[Size | None] | None = None) -> Flow:
    found = mixed(f"{op.node} looks at all rows at once")
    return found if shape is None else replace(found, shape=tuple(shape))


@rule(*_REDUCTIONS)
def reduce(op: Operation) -> Result:
    """One element is made of all along ``axes``, or of all there are."""
    flow = op.input(0)
    plain = single(op)
    if plain is not None and (plain.kind is Kind.UNKNOWN or (plain.kind is Kind.MIXED and flow.shape is None)):
        return plain
    axes = op.axes(1)
    if not axes and op.integer("noop_with_empty_axes", 0):
        return flow
    if plain is not None:
        return replace(_reduced_shape(op, plain, flow, axes), why=plain.why)
    rank = len(flow.shape or ())
    along = {position(op, axis, rank) for axis in axes} if axes else set(range(rank))
    if flow.axis in along:
        return _along_rows(op, _reduced_shape(op, Flow(Kind.SHARED), replace(flow, elements=None), axes).shape)
    return _without(flow, along, keep=op.integer("keepdims", 1) == 1)


def _reduced_shape(op: Operation, plain: Flow, flow: Flow, axes: Sequence[int] | None) -> Flow:
    if op.node.operator == "ReduceProd" and flow.elements is not None and not axes:
        total = ONE
        for element in flow.elements:
            if element is None:
                return plain
            total = total.times(element)
        shape = [ONE] if op.integer("keepdims", 1) else []
        return Flow(plain.kind if total.counts_rows else Kind.SHARED, shape=tuple(shape), elements=(total,))
    if flow.shape is None:
        return plain
    rank = len(flow.shape)
    along = {position(op, axis, rank) for axis in axes} if axes else set(range(rank))
    keep = op.integer("keepdims", 1) == 1
    sizes = [ONE if axis in along else size for axis, size in enumerate(flow.shape) if keep or axis not in along]
    return Flow(plain.kind, shape=tuple(sizes))


def _without(flow: Flow, along: set[int], *, keep: bool) -> Flow:
    """Return ``flow`` after a reduction along axes other than the rows'."""
    shape = flow.shape or ()
    if keep:
        return rows(flow.axis, [ONE if axis in along else size for axis, size in enumerate(shape)])
    sizes = [size for axis, size in enumerate(shape) if axis not in along]
    return rows(flow.axis - sum(axis < flow.axis for axis in along), sizes)


@rule("ArgMax", "ArgMin")
def arg_reduce(op: Operation) -> Result:
    """The place of the largest or smallest element along an axis."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    axis = position(op, op.integer("axis", 0), len(flow.shape or ()))
    return _along_rows(op) if axis == flow.axis else _without(flow, {axis}, keep=op.integer("keepdims", 1) == 1)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Operation) -> Result:
    """Along one axis; before operator set 13 along all axes from the given one on."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    one_axis = op.opset >= 13
    axis = position(op, op.integer("axis", -1 if one_axis else 1), len(flow.shape or ()))
    mixes = flow.axis == axis if one_axis else flow.axis >= axis
    return _along_rows(op, flow.shape) if mixes else flow


@rule("CumSum", "CumProd", "LpNormalization", "TopK", "Sort")
def along_one_axis(op: Operation) -> Result:
    """Depends on the elements along an axis and on their order."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if op.node.operator.startswith("Cum"):
        elements = op.input(1).elements
        given = elements[0].number if elements and elements[0] is not None else None
        if given is None:
            raise op.undecided("its axis is not known")
    else:
        given = op.integer("axis", -1)
    axis = position(op, given, len(flow.shape or ()))
    if axis == flow.axis:
        return _along_rows(op, None if op.node.operator == "TopK" else flow.shape)
    if op.node.operator != "TopK":
        return flow
    sizes = list(flow.shape or ())
    sizes[axis] = op.fresh("k")
    return rows(flow.axis, sizes)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
@rule("SimplifiedLayerNormalization", "LayerNormalization", domain="com.microsoft")
def layer_normalization(op: Operation) -> Result:
    """Along all axes from the given one on."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    rank = len(flow.shape or ())
    axis = position(op, op.integer("axis", -1), rank)
    if flow.axis >= axis:
        return _along_rows(op)
    moments = rows(flow.axis, [size if at < axis else ONE for at, size in enumerate(flow.shape or ())])
    return [flow, moments, moments][: max(len(op.node.outputs), 1)]


@rule("MeanVarianceNormalization")
def mean_variance(op: Operation) -> Result:
    """Along the axes given, which by default are those of pictures and their rows."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    axes = op.integers("axes") or (0, 2, 3)
    rank = len(flow.shape or ())
    return _along_rows(op, flow.shape) if flow.axis in {position(op, axis, rank) for axis in axes} else flow


@rule("InstanceNormalization", "GroupNormalization", "LRN")
@rule("GroupNorm", "SkipGroupNorm", domain="com.microsoft")
def picture_normalization(op: Operation) -> Result:
    """Along all axes but the first, which counts pictures, and at times the second, which counts channels."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    if flow.axis > 1:
        return _along_rows(op, flow.shape)
    if flow.axis == 1:
        raise op.undecided("the rows are where channels are expected")
    return flow


@rule("BatchNormalization")
def batch_normalization(op: Operation) -> Result:
    """By the statistics of training, unless it trains."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    if op.integer("training_mode", 0):
        return _along_rows(op)
    if flow.axis == 1:
        raise op.undecided("the rows are where channels are expected")
    return [flow, *([shared()] * (len(op.node.outputs) - 1))]


@rule("ReverseSequence")
def reverse_sequence(op: Operation) -> Result:
    """Reverse the beginning of each row, as long as is said for it."""
    flow, lengths = op.input(0), op.input(1)
    bad = worst([flow, lengths])
    if bad is not None:
        return bad
    if flow.kind is not Kind.ROWS:
        raise op.undecided("the lengths may depend on the rows")
    rank = len(flow.shape or ())
    if flow.axis == position(op, op.integer("time_axis", 0), rank):
        return _along_rows(op)
    if flow.axis != position(op, op.integer("batch_axis", 1), rank) or not lengths.is_plain:
        raise op.undecided("it is not known what it does to the rows")
    return flow


@rule("DynamicQuantizeLinear")
@rule("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", domain="com.microsoft")
def dynamic_quantization(op: Operation) -> Result:
    """The scale follows from the smallest and largest element of the whole tensor."""
    flow = op.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    found = mixed(f"{op.node} takes its scale from all rows at once (dynamic quantisation)")
    if op.node.operator == "DynamicQuantizeLinear":
        return [replace(found, shape=flow.shape), replace(found, shape=()), replace(found, shape=())]
    if op.node.operator == "DynamicQuantizeMatMul" and op.input(1).rank == 2:
        return replace(found, shape=(*(flow.shape or ())[:-1], op.input(1).size(1)))
    return found


@rule("NonZero", "Unique", "NonMaxSuppression")
def places(op: Operation) -> Result:
    """As many come out as there are, whichever row they are from."""
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    flow = op.input(0)
    if op.node.operator == "NonZero" and flow.why == FILLED and flow.rank == 1 and flow.is_exact:
        # The way in which some exporters write the numbers from 0 to the number of rows.
        return Flow(Kind.COUNT, axis=1, shape=(ONE, flow.size(0)))
    return mixed(f"{op.node} gives as many elements as it finds in all rows together")


@rule("Compress")
def compress(op: Operation) -> Result:
    """Keep what a condition says."""
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


@rule("StringSplit")
def string_split(op: Operation) -> Result:
    """The parts of each text, padded to the most that any text has."""
    flow = op.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    parts = rows(flow.axis, [*(flow.shape or ()), padded(0, op.fresh("parts"))])
    return [replace(parts, why=FILLED_UP), replace(flow, why="")]


@rule("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
def random(op: Operation) -> Result:
    """Another answer each time."""
    raise op.undecided("it draws random numbers")


@rule("DFT", "STFT")
def transform(op: Operation) -> Result:
    """Along one axis, which is an attribute in older operator sets and an input in newer."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if op.node.operator == "STFT":
        given: int | None = 1
    elif op.opset >= 20:
        found = [-2] if op.optional(2) is None else numbers(op.input(2).elements)
        given = found[0] if found else None
    else:
        given = op.integer("axis", 1)
    if given is None:
        raise op.undecided("its axis is not known")
    rank = len(flow.shape or ())
    if position(op, given, rank) == flow.axis:
        return _along_rows(op)
    sizes = [size if at == flow.axis else op.fresh(at) for at, size in enumerate(flow.shape or ())]
    if op.node.operator == "STFT":
        sizes.append(op.fresh("parts"))
    return rows(flow.axis, sizes)


@rule("OneHot")
def one_hot(op: Operation) -> Result:
    """A new axis with a one where the index says."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rank = len(flow.shape or ()) + 1
    axis = position(op, op.integer("axis", -1), rank)
    sizes = list(flow.shape or ())
    sizes.insert(axis, op.fresh("depth"))
    return rows(flow.axis + (axis <= flow.axis), sizes)


@rule("Gather")
def gather(op: Operation) -> Result:
    """Take slices of the first input by number."""
    data, indices = op.input(0), op.input(1)
    bad = worst([data, indices])
    if bad is not None:
        return bad
    axis = op.integer("axis", 0)
    if data.elements is not None and indices.elements is not None and data.rank == 1:
        return _picked(data, indices)
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


def _picked(data: Flow, indices: Flow) -> Flow:
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
            raise op.undecided("it takes rows by numbers that follow from how many there are")
        return mixed(f"{op.node} takes rows by number")
    if indices.kind is Kind.ROWS:
        return mixed(f"{op.node} looks into each row for every other")
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
    """Take or put single elements along an axis."""
    flows = op.given()
    plain = without_rows(flows)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    first = flows[0]
    # Of another size, parts of rows would stand beside those of others.
    own = first.size(first.axis)
    if own is None or any(
        (flow.kind, flow.axis, flow.size(flow.axis)) != (Kind.ROWS, first.axis, own) for flow in flows
    ):
        raise op.undecided("not all of its inputs have the rows in one place")
    if position(op, op.integer("axis", 0), len(first.shape or ())) == first.axis:
        return mixed(f"{op.node} takes rows by number")
    return rows(first.axis, (flows[1] if op.node.operator == "GatherElements" else first).shape or ())


def _picks_each_row(indices: Flow) -> bool:
    """Whether coordinates begin with the number of the row that they are for."""
    return indices.kind is Kind.COUNT and indices.why == COORDINATES and indices.axis == 0


@rule("GatherND")
def gather_nd(op: Operation) -> Result:
    """Take slices by several numbers each."""
    data, indices = op.input(0), op.input(1)
    plain = without_rows([data, indices])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    shared_dims = op.integer("batch_dims", 0)
    if data.is_exact and data.axis == 0 and _picks_each_row(indices) and not shared_dims:
        looks = (indices.shape or ())[-1]
        if looks is None or looks.number is None:
            raise op.undecided("it is not known how deep it looks")
        return rows(indices.axis, [*(indices.shape or ())[:-1], *(data.shape or ())[looks.number :]])
    if data.shape is None or indices.shape is None or indices.shape[-1] is None or indices.kind is not Kind.ROWS:
        raise op.undecided("it is not known which elements it takes")
    depth = indices.shape[-1].number
    # Where there are several looks for each slice, it is not checked that there are as many slices as rows.
    as_many = data.size(data.axis) is not None and data.size(data.axis) == indices.size(indices.axis)
    both = data.kind is Kind.ROWS and data.axis == indices.axis < shared_dims and as_many
    table = data.kind is Kind.SHARED and indices.axis < len(indices.shape) - 1
    if depth is None or not (both or table):
        raise op.undecided("it is not known which elements it takes")
    return rows(indices.axis, [*indices.shape[:-1], *data.shape[shared_dims + depth :]])


@rule("ScatterND")
def scatter_nd(op: Operation) -> Result:
    """Put elements where numbers say."""
    data, indices, updates = (op.input(index) for index in range(3))
    plain = without_rows([data, indices, updates])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    own = updates.kind is Kind.SHARED or (updates.is_exact and updates.axis == 0)
    if data.is_exact and data.axis == 0 and _picks_each_row(indices) and own:
        return data
    if data.kind is Kind.SHARED and Kind.ROWS in {indices.kind, updates.kind}:
        return mixed(f"{op.node} puts all rows into one tensor")
    raise op.undecided("it is not known which rows it changes")
