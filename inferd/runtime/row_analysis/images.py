"""Operators on images of [rows,channels,...]: convolution, pooling, resizing, normalisation by channel."""

from inferd.runtime.kept_state import is_training
from inferd.runtime.row_analysis.flow import ONE, ONE_FIRST, Flow, Kind, Size, Sizes, mixed, rows, shared
from inferd.runtime.row_analysis.operation import (
    Operation,
    Result,
    mixed_along_rows,
    position,
    rule,
    single,
    without_rows,
)


@rule("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "MaxPool", "AveragePool", "LpPool")
@rule("FusedConv", "QLinearAveragePool", "NhwcConv", domain="com.microsoft")
def window(op: Operation) -> Result:
    """A window over [rows,channels,...]."""
    flow = op.input(0)
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if flow.kind is not Kind.ROWS:
        return mixed(f"{op.node} has weights that depend on the rows")
    if any(other.kind is not Kind.SHARED for other in op.given()[1:]):
        raise op.undecided("an input other than the first depends on the rows")
    rank = len(flow.shape or ())
    channels_apart = flow.axis == 1 and "Pool" in op.node.operator
    if flow.axis and (op.node.operator == "NhwcConv" or op.integer("channels_last", 0)):
        raise op.undecided("its rows are not its first dimension")
    if (flow.axis == 1 and not channels_apart) or (flow.axis > 1 and not _is_one_wide(op, flow.axis - 2, rank - 2)):
        raise op.undecided("the window covers several rows")
    sizes = [flow.size(axis) if axis == flow.axis else op.fresh(axis) for axis in range(rank)]
    # The second output of MaxPool has indices into the whole batch.
    second = Flow(Kind.UNKNOWN, why=f"{op.node}: its indices refer to the whole batch")
    return [rows(flow.axis, sizes), *([second] * (len(op.node.outputs) - 1))]


def _is_one_wide(op: Operation, axis: int, rank: int) -> bool:
    """Whether the window has size and stride 1, without padding, along ``axis`` of ``rank`` spatial axes."""
    if {"output_padding", "output_shape"} & set(op.node.attributes):
        return False
    widths = op.integers("kernel_shape")
    if widths is None:
        sizes = (op.input(1).shape or ())[2:] if len(op.inputs) > 1 else ()
        widths = tuple(-1 if size is None or size.number is None else size.number for size in sizes)
    strides = op.integers("strides") or (1,) * rank
    pads = op.integers("pads") or (0,) * (2 * rank)
    whole = len(widths) == len(strides) == rank and len(pads) == 2 * rank
    return whole and widths[axis] == strides[axis] == 1 and pads[axis] == pads[axis + rank] == 0


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(op: Operation) -> Result:
    """Reduce all axes of [rows,channels,...] but the first two."""
    flow = op.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if flow.axis > 1:
        return mixed(f"{op.node} looks at all rows at once")
    return rows(flow.axis, [size if axis < 2 else ONE for axis, size in enumerate(flow.shape or ())])


@rule("DepthToSpace", "SpaceToDepth", "Resize", "Upsample", "CenterCropPad", "GridSample")
def within_images(op: Operation) -> Result:
    """Resize or rearrange images of [rows,channels,...], row by row."""
    flows = [op.input(0), *op.given(1)] if op.node.operator == "GridSample" else [op.input(0)]
    bad = without_rows(op.given())
    if bad is not None:
        return Flow(bad.kind, why=bad.why)
    if any(flow.kind is not Kind.ROWS or flow.axis != 0 for flow in flows):
        raise op.undecided("the rows are not its first dimension")
    crops = op.text("coordinate_transformation_mode") == "tf_crop_and_resize"
    if crops or op.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise op.undecided("it may change the number of rows")
    for index, flow in enumerate(op.inputs):
        if index >= len(flows) and flow is not None and not _leaves_rows(op, index, flow):
            raise op.undecided("it may depend on the number of rows")
    shape = flows[0].shape or ()
    known = _image_sizes(op, shape)
    return rows(0, [shape[0], *(known.get(axis) or op.fresh(axis) for axis in range(1, len(shape)))])


def _image_sizes(op: Operation, shape: Sizes) -> dict[int, Size | None]:
    """Return the known output sizes of images of ``shape``, by axis."""
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
    """Whether input ``index`` sets the image size and leaves the number of rows as it is."""
    operator, data = op.node.operator, op.input(0)
    axes = [position(op, axis, len(data.shape or ())) for axis in op.integers("axes") or (0,)]
    # The region of interest has no effect without `crops`, and does not exist before opset 11.
    is_region = (operator, index) == ("Resize", 1) and op.opset >= 11
    if is_region or 0 not in axes or flow.shape == (Size(0),):
        return flow.kind is Kind.SHARED
    if (operator, index) in {("Resize", 3), ("CenterCropPad", 1)}:
        return flow.kind is Kind.COUNT and axes[0] == 0 and _keeps_rows(flow.elements, data.size(0))
    return flow.kind is Kind.SHARED and axes[0] == 0 and flow.why == ONE_FIRST


def _keeps_rows(sizes: Sizes | None, own: Size | None) -> bool:
    """Whether a shape starts with the size of the rows, and no other size depends on their number."""
    if not sizes or own is None or sizes[0] != own:
        return False
    return not any(size is None or size.counts_rows for size in sizes[1:])


@rule("MeanVarianceNormalization")
def mean_variance(op: Operation) -> Result:
    """Along the axes given; the default includes the rows."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    axes = op.integers("axes") or (0, 2, 3)
    rank = len(flow.shape or ())
    return mixed_along_rows(op, flow.shape) if flow.axis in {position(op, axis, rank) for axis in axes} else flow


@rule("InstanceNormalization", "GroupNormalization", "LRN")
@rule("GroupNorm", "SkipGroupNorm", domain="com.microsoft")
def channel_normalization(op: Operation) -> Result:
    """Along all axes of [rows,channels,...] but the first, or the first two."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    if flow.axis > 1:
        return mixed_along_rows(op, flow.shape)
    if flow.axis == 1:
        raise op.undecided("the rows are on the channel axis")
    return flow


@rule("BatchNormalization")
def batch_normalization(op: Operation) -> Result:
    """By constant statistics, except in training mode."""
    flow, plain = op.input(0), single(op)
    if plain is not None:
        return Flow(plain.kind, shape=flow.shape, why=plain.why)
    # Raises if the caller of a function decides.
    op.integer("training_mode", 0)
    if is_training(op.node, op.opset):
        return mixed_along_rows(op)
    if flow.axis == 1:
        raise op.undecided("the rows are on the channel axis")
    return [flow, *([shared()] * (len(op.node.outputs) - 1))]
