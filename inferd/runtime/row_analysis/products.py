"""Operators that multiply and add up: dense layers, convolutions, recurrent networks, attention, trees."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import ONE, Flow, Kind, Size, mixed, product, rows, same_rows, worst
from inferd.runtime.row_analysis.operation import Operation, Result, rule, single, without_rows
from inferd.runtime.row_analysis.pointwise import broadcast, broadcast_shape


@rule("MatMul")
def matmul(op: Operation) -> Result:
    """The last axis of the first is summed with the last but one of the second."""
    return _matmul(op, op.input(0), op.input(1), op.given())


@rule("MatMulInteger")
@rule("MatMulInteger", "MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer(op: Operation) -> Result:
    """As `matmul`, with scales and zero points after the two."""
    return _matmul(op, op.input(0), op.input(1), op.given())


@rule("QLinearMatMul")
def matmul_quantized(op: Operation) -> Result:
    """As `matmul`, with scales and zero points between the two."""
    return _matmul(op, op.input(0), op.input(3), op.given())


@rule("MatMulNBits", "FusedMatMul", "TransposeMatMul", "FusedGemm", domain="com.microsoft")
def matmul_extended(op: Operation) -> Result:
    """As `matmul`, if nothing is transposed."""
    if any(op.integer(name, 0) for name in ("transBatchA", "transBatchB")):
        raise op.undecided("it transposes")
    if op.node.operator == "MatMulNBits":
        flow, plain = op.input(0), single(op)
        if plain is not None:
            return plain
        if flow.axis == len(flow.shape or ()) - 1:
            return mixed(f"{op.node} adds up all rows")
        return rows(flow.axis, [*(flow.shape or ())[:-1], op.fresh("n")])
    a, b = _matrix(op, 0, "transA"), _matrix(op, 1, "transB")
    return _matmul(op, a, b, [a, b, *op.given()[2:]])


def _matmul(op: Operation, a: Flow, b: Flow, given: Sequence[Flow]) -> Flow:
    plain = without_rows(given)
    if plain is not None and plain.kind is Kind.UNKNOWN:
        return plain
    others = [flow for flow in given if flow is not a and flow is not b]
    if plain is None and any(flow.kind is not Kind.SHARED for flow in others):
        raise op.undecided("a scale depends on the rows")
    if not a.shape or not b.shape:
        if plain is None:
            raise op.undecided("a rank is not known")
        return plain
    left = (*a.shape[:-1], a.shape[-1]) if len(a.shape) > 1 else (ONE, a.shape[0])
    right = b.shape if len(b.shape) > 1 else (b.shape[0], ONE)
    batch = broadcast_shape([left[:-2], right[:-2]]) or []
    sizes = [*batch, *([left[-2]] if len(a.shape) > 1 else []), *([right[-1]] if len(b.shape) > 1 else [])]
    if plain is not None:
        return replace(plain, shape=tuple(sizes))
    if Kind.COUNT in {a.kind, b.kind}:
        raise op.undecided("it may depend on the number of rows")
    places = _places(op, a, b, left, right)
    if isinstance(places, Flow):
        return replace(places, shape=tuple(sizes))
    # A vector is laid over the last axes, of which one is gone afterwards.
    is_nearer = len(b.shape) == 1 or (len(a.shape) == 1 and places <= -3)
    place = places + 1 if is_nearer else places
    sizes[place] = a.size(a.axis) if a.kind is Kind.ROWS else b.size(b.axis)
    return rows(place, sizes)


def _places(op: Operation, a: Flow, b: Flow, left: Sequence[Size | None], right: Sequence[Size | None]) -> int | Flow:
    """Return where the rows come out, counted from the end of [..., m, n], or what mixes them."""
    a_place = a.axis - len(a.shape or ()) if a.kind is Kind.ROWS else None
    b_place = b.axis - len(b.shape or ()) if b.kind is Kind.ROWS else None
    if b_place == -1 and len(b.shape or ()) == 1:
        b_place = -2
    if a_place == -1 or b_place == -2:
        return mixed(f"{op.node} adds up all rows")
    if a_place is not None and b_place is not None:
        if a_place != b_place or a_place > -3:
            return mixed(f"{op.node} combines each row with every other")
        if not same_rows(a.size(a.axis), b.size(b.axis)):
            raise op.undecided("rows come in parts of different sizes")
        return a_place
    place = a_place if a_place is not None else b_place
    assert place is not None
    other = right if a_place is not None else left
    if place <= -3 and len(other) >= -place and other[place] != ONE:
        raise op.undecided("a shared input has a size of its own where the rows are")
    return place


@rule("Gemm")
def gemm(op: Operation) -> Result:
    """As `matmul` of two matrices, either of which may be transposed, plus a third."""
    a, b = (_matrix(op, index, name) for index, name in ((0, "transA"), (1, "transB")))
    result = _matmul(op, a, b, [a, b])
    added = op.optional(2)
    return result if added is None else broadcast(op, [result, added])


def _matrix(op: Operation, index: int, name: str) -> Flow:
    flow = op.input(index)
    if not op.integer(name, 0) or flow.shape is None:
        return flow
    sizes = (*flow.shape[:-2], *flow.shape[:-3:-1])
    if flow.kind is not Kind.ROWS:
        return Flow(flow.kind, shape=sizes, why=flow.why)
    place = flow.axis - len(sizes)
    return rows({-1: -2, -2: -1}.get(place, place), sizes)


@rule("Einsum")
def einsum(op: Operation) -> Result:
    """The rows' letter must be the same in all inputs and stand in the output."""
    flows = op.given()
    plain = without_rows(flows)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    left, arrow, right = op.text("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or len(terms) != len(flows):
        raise op.undecided("its equation is not understood")
    sizes: dict[str, Size | None] = {}
    letters: set[str] = set()
    for term, flow in zip(terms, flows, strict=True):
        if flow.shape is None or len(term) != len(flow.shape) or len(set(term)) < len(term):
            raise op.undecided("its equation is not understood")
        sizes.update(zip(term, flow.shape, strict=True))
        if flow.kind is Kind.ROWS:
            letters.add(term[flow.axis])
    if len(letters) > 1:
        return mixed(f"{op.node} combines each row with every other")
    letter = letters.pop()
    for term, flow in zip(terms, flows, strict=True):
        if flow.kind is not Kind.ROWS and (letter in term or flow.kind is Kind.COUNT):
            raise op.undecided("a shared input has a size of its own where the rows are")
    if letter not in right:
        return mixed(f"{op.node} adds up all rows")
    with_rows = next(flow for flow in flows if flow.kind is Kind.ROWS)
    sizes[letter] = with_rows.size(with_rows.axis)
    return rows(right.index(letter), [sizes[each] for each in right])


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
        raise op.undecided("another input than the first depends on the rows")
    rank = len(flow.shape or ())
    channels_apart = flow.axis == 1 and "Pool" in op.node.operator
    if flow.axis and (op.node.operator == "NhwcConv" or op.integer("channels_last", 0)):
        raise op.undecided("its rows are not its first dimension")
    if (flow.axis == 1 and not channels_apart) or (flow.axis > 1 and not _is_one_wide(op, flow.axis - 2, rank - 2)):
        raise op.undecided("the window goes along the rows")
    sizes = [flow.size(axis) if axis == flow.axis else op.fresh(axis) for axis in range(rank)]
    # The second output of MaxPool counts elements from the beginning of the batch.
    second = Flow(Kind.UNKNOWN, why=f"{op.node}: its indices count from the first row")
    return [rows(flow.axis, sizes), *([second] * (len(op.node.outputs) - 1))]


def _is_one_wide(op: Operation, axis: int, rank: int) -> bool:
    """Whether a window takes one place along ``axis`` of the picture's ``rank``, and all of them in turn."""
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
    """All of [rows,channels,...] but the first two axes."""
    flow = op.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if flow.axis > 1:
        return mixed(f"{op.node} looks at all rows at once")
    return rows(flow.axis, [size if axis < 2 else ONE for axis, size in enumerate(flow.shape or ())])


@rule("RNN", "LSTM", "GRU")
def recurrent(op: Operation) -> Result:
    """Goes along the first axis, or the second where the layout says so; the other one of the two counts rows."""
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rows_first = op.integer("layout", 0) == 1
    flow = op.input(0)
    if flow.kind is not Kind.ROWS:
        raise op.undecided("another input than the first depends on the rows")
    if flow.axis != (0 if rows_first else 1):
        return mixed(f"{op.node} runs along the rows")
    for index, other in enumerate(op.inputs[1:], start=1):
        _check_recurrent_input(op, index, other, rows_first=rows_first)
    size, steps = flow.size(flow.axis), flow.size(1 - flow.axis)
    directions, hidden = op.fresh("directions"), op.fresh("hidden")
    if rows_first:
        last = rows(0, [size, directions, hidden])
        return [rows(0, [size, steps, directions, hidden]), last, last][: max(len(op.node.outputs), 1)]
    last = rows(1, [directions, size, hidden])
    return [rows(2, [steps, directions, size, hidden]), last, last][: max(len(op.node.outputs), 1)]


def _check_recurrent_input(op: Operation, index: int, flow: Flow | None, *, rows_first: bool) -> None:
    if flow is None:
        return
    axis = {4: 0, 5: 0 if rows_first else 1, 6: 0 if rows_first else 1}.get(index)
    if flow.kind is (Kind.SHARED if axis is None else Kind.ROWS) and (axis is None or flow.axis == axis):
        return
    raise op.undecided("an initial state or a length is not that of its row")


@rule("Attention", "RotaryEmbedding")
@rule(
    "Attention",
    "MultiHeadAttention",
    "QAttention",
    "PackedAttention",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "RotaryEmbedding",
    "GatedRelativePositionBias",
    domain="com.microsoft",
)
def within_sequences(op: Operation) -> Result:
    """Inputs of [rows,...], each by itself; the first output is of the rank of the first input."""
    if op.node.operator in {"PackedAttention", "GatedRelativePositionBias"}:
        raise op.undecided("its rows come out otherwise")
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if any(flow.kind is Kind.COUNT or (flow.kind is Kind.ROWS and flow.axis != 0) for flow in op.given()):
        raise op.undecided("the rows are not its first dimension")
    flow = op.input(0)
    if flow.kind is not Kind.ROWS or flow.shape is None:
        raise op.undecided("its first input does not depend on the rows")
    _require_own_places(op)
    is_packed = op.node.operator == "MultiHeadAttention" and len(flow.shape) > 3
    first = rows(0, [*(flow.shape[:2] if is_packed else flow.shape[:-1]), op.fresh("width")])
    other = Flow(Kind.UNKNOWN, why=f"{op.node}: further outputs are not followed")
    return [first, *([other] * (len(op.node.outputs) - 1))]


def _require_own_places(op: Operation) -> None:
    """Raise if an input whose first dimension is no batch has the rows there."""
    own = op.node.domain != "com.microsoft"
    if op.node.operator == "RotaryEmbedding":
        tables = (op.optional(index) for index in ((1, 2) if own else (2, 3)))
        if any(table is not None and table.kind is Kind.ROWS for table in tables):
            raise op.undecided("a table that all rows look into depends on them")
    mask = op.optional(3)
    if op.node.operator == "Attention" and own and mask is not None and mask.kind is Kind.ROWS and mask.rank != 4:
        raise op.undecided("the first dimension of its mask is not the rows'")


@rule(
    "TreeEnsemble", "TreeEnsembleRegressor", "TreeEnsembleClassifier", "LinearRegressor", "LinearClassifier",
    "SVMRegressor", "SVMClassifier", "OneHotEncoder", "FeatureVectorizer", "ZipMap",
    domain="ai.onnx.ml",
)  # fmt: skip
@rule("TfIdfVectorizer")
def features(op: Operation) -> Result:
    """Rows of features, [rows,features]."""
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    bad = worst(op.given())
    if bad is not None:
        return bad
    for flow in op.given():
        if flow.kind is Kind.COUNT or (flow.kind is Kind.ROWS and (flow.axis != 0 or len(flow.shape or ()) < 2)):
            raise op.undecided("its rows are not the first of two dimensions")
    with_rows = [flow for flow in op.given() if flow.kind is Kind.ROWS]
    flow = with_rows[0]
    if any(not same_rows(flow.size(0), other.size(0)) for other in with_rows):
        raise op.undecided("rows come in parts of different sizes")
    targets = {"LinearRegressor": ("targets", 1), "TreeEnsembleRegressor": ("n_targets", 0)}.get(op.node.operator)
    width = op.integer(*targets) if targets else 0
    wide = rows(0, [flow.size(0), Size(width) if width > 0 else op.fresh("width")])
    if op.node.operator.endswith("Classifier"):
        return [rows(0, [flow.size(0)]), wide]
    if op.node.operator == "OneHotEncoder":
        return rows(0, [*(flow.shape or ()), op.fresh("width")])
    return wide


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def extract_features(op: Operation) -> Result:
    """Take elements along the last axis by numbers, of which those of all rows come out one behind the other."""
    table, indices = op.input(0), op.input(1)
    plain = without_rows([table, indices])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if table.kind is Kind.ROWS and indices.kind is Kind.SHARED and table.axis < len(table.shape or ()) - 1:
        return rows(table.axis, [*(table.shape or ())[:-1], op.fresh("taken")])
    outermost = product((indices.shape or ())[: indices.axis]) == ONE
    if table.kind is Kind.SHARED and table.rank == 1 and outermost:
        return rows(1, [ONE, product(indices.shape or ())])
    raise op.undecided("it is not known where the rows come out")
