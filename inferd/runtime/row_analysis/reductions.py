"""Operators that combine elements along axes: reductions, softmax, norms, sorting, transforms."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import ONE, Flow, Kind, mixed, numbers, rows, worst
from inferd.runtime.row_analysis.operation import (
    Operation,
    Result,
    mixed_along_rows,
    position,
    rule,
    single,
    without_rows,
)

_REDUCTIONS = (  # noqa: SIM905  (as in `pointwise`)
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
).split()


@rule(*_REDUCTIONS)
def reduce(op: Operation) -> Result:
    """Reduce along ``axes``, or along all."""
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
        return mixed_along_rows(op, _reduced_shape(op, Flow(Kind.SHARED), replace(flow, elements=None), axes).shape)
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
    """Return ``flow`` reduced along axes other than the rows'."""
    shape = flow.shape or ()
    if keep:
        return rows(flow.axis, [ONE if axis in along else size for axis, size in enumerate(shape)])
    sizes = [size for axis, size in enumerate(shape) if axis not in along]
    return rows(flow.axis - sum(axis < flow.axis for axis in along), sizes)


@rule("ArgMax", "ArgMin")
def arg_reduce(op: Operation) -> Result:
    """The index of the largest or smallest element along an axis."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    axis = position(op, op.integer("axis", 0), len(flow.shape or ()))
    return mixed_along_rows(op) if axis == flow.axis else _without(flow, {axis}, keep=op.integer("keepdims", 1) == 1)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Operation) -> Result:
    """Along one axis; before opset 13 along all axes from the given one on."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    one_axis = op.opset >= 13
    axis = position(op, op.integer("axis", -1 if one_axis else 1), len(flow.shape or ()))
    mixes = flow.axis == axis if one_axis else flow.axis >= axis
    return mixed_along_rows(op, flow.shape) if mixes else flow


@rule("CumSum", "CumProd", "LpNormalization", "TopK", "Sort")
def along_one_axis(op: Operation) -> Result:
    """Depends on all elements along an axis."""
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
        return mixed_along_rows(op, None if op.node.operator == "TopK" else flow.shape)
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
        return mixed_along_rows(op)
    moments = rows(flow.axis, [size if at < axis else ONE for at, size in enumerate(flow.shape or ())])
    return [flow, moments, moments][: max(len(op.node.outputs), 1)]


@rule("ReverseSequence")
def reverse_sequence(op: Operation) -> Result:
    """Reverse the start of each row, up to a length for each."""
    flow, lengths = op.input(0), op.input(1)
    bad = worst([flow, lengths])
    if bad is not None:
        return bad
    if flow.kind is not Kind.ROWS:
        raise op.undecided("the lengths may depend on the rows")
    rank = len(flow.shape or ())
    if flow.axis == position(op, op.integer("time_axis", 0), rank):
        return mixed_along_rows(op)
    if flow.axis != position(op, op.integer("batch_axis", 1), rank) or not lengths.is_plain:
        raise op.undecided("it may not reverse along the rows' own axis")
    return flow


@rule("DynamicQuantizeLinear")
@rule("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", domain="com.microsoft")
def dynamic_quantization(op: Operation) -> Result:
    """The scale depends on the extremes of the whole tensor."""
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


@rule("DFT", "STFT")
def transform(op: Operation) -> Result:
    """Along one axis, an attribute in older opsets and an input in newer ones."""
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
        return mixed_along_rows(op)
    sizes = [size if at == flow.axis else op.fresh(at) for at, size in enumerate(flow.shape or ())]
    if op.node.operator == "STFT":
        sizes.append(op.fresh("parts"))
    return rows(flow.axis, sizes)
