"""Operators that multiply and add up: dense layers, convolutions, recurrent networks, attention, trees."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.call import Call, Result, rule, single, without_rows
from inferd.runtime.row_analysis.flow import ONE, Flow, Kind, Size, mixed, product, rows, same_rows, worst
from inferd.runtime.row_analysis.pointwise import broadcast, broadcast_shape


@rule("MatMul")
def matmul(call: Call) -> Result:
    """The last axis of the first is summed with the last but one of the second."""
    return _matmul(call, call.input(0), call.input(1), call.given())


@rule("MatMulInteger")
@rule("MatMulInteger", "MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer(call: Call) -> Result:
    """As `matmul`, with scales and zero points after the two."""
    return _matmul(call, call.input(0), call.input(1), call.given())


@rule("QLinearMatMul")
def matmul_quantized(call: Call) -> Result:
    """As `matmul`, with scales and zero points between the two."""
    return _matmul(call, call.input(0), call.input(3), call.given())


@rule("MatMulNBits", "FusedMatMul", "TransposeMatMul", "FusedGemm", domain="com.microsoft")
def matmul_extended(call: Call) -> Result:
    """As `matmul`, if nothing is transposed."""
    if any(call.integer(name, 0) for name in ("transBatchA", "transBatchB")):
        raise call.unclear("it transposes")
    if call.node.operator == "MatMulNBits":
        flow, plain = call.input(0), single(call)
        if plain is not None:
            return plain
        if flow.axis == len(flow.shape or ()) - 1:
            return mixed(f"{call.node} adds up all rows")
        return rows(flow.axis, [*(flow.shape or ())[:-1], call.fresh("n")])
    a, b = _matrix(call, 0, "transA"), _matrix(call, 1, "transB")
    return _matmul(call, a, b, [a, b, *call.given()[2:]])


def _matmul(call: Call, a: Flow, b: Flow, given: Sequence[Flow]) -> Flow:
    plain = without_rows(given)
    if plain is not None and plain.kind is Kind.UNKNOWN:
        return plain
    others = [flow for flow in given if flow is not a and flow is not b]
    if plain is None and any(flow.kind is not Kind.SHARED for flow in others):
        raise call.unclear("a scale depends on the rows")
    if not a.shape or not b.shape:
        if plain is None:
            raise call.unclear("a rank is not known")
        return plain
    left = (*a.shape[:-1], a.shape[-1]) if len(a.shape) > 1 else (ONE, a.shape[0])
    right = b.shape if len(b.shape) > 1 else (b.shape[0], ONE)
    batch = broadcast_shape([left[:-2], right[:-2]]) or []
    sizes = [*batch, *([left[-2]] if len(a.shape) > 1 else []), *([right[-1]] if len(b.shape) > 1 else [])]
    if plain is not None:
        return replace(plain, shape=tuple(sizes))
    if Kind.COUNT in {a.kind, b.kind}:
        raise call.unclear("it may depend on the number of rows")
    places = _places(call, a, b, left, right)
    if isinstance(places, Flow):
        return replace(places, shape=tuple(sizes))
    # A vector is laid over the last axes, of which one is gone afterwards.
    is_nearer = len(b.shape) == 1 or (len(a.shape) == 1 and places <= -3)
    place = places + 1 if is_nearer else places
    sizes[place] = a.size(a.axis) if a.kind is Kind.ROWS else b.size(b.axis)
    return rows(place, sizes)


def _places(call: Call, a: Flow, b: Flow, left: Sequence[Size | None], right: Sequence[Size | None]) -> int | Flow:
    """Return where the rows come out, counted from the end of [..., m, n], or what mixes them."""
    a_place = a.axis - len(a.shape or ()) if a.kind is Kind.ROWS else None
    b_place = b.axis - len(b.shape or ()) if b.kind is Kind.ROWS else None
    if b_place == -1 and len(b.shape or ()) == 1:
        b_place = -2
    if a_place == -1 or b_place == -2:
        return mixed(f"{call.node} adds up all rows")
    if a_place is not None and b_place is not None:
        if a_place != b_place or a_place > -3:
            return mixed(f"{call.node} combines each row with every other")
        if not same_rows(a.size(a.axis), b.size(b.axis)):
            raise call.unclear("rows come in parts of different sizes")
        return a_place
    place = a_place if a_place is not None else b_place
    assert place is not None
    other = right if a_place is not None else left
    if place <= -3 and len(other) >= -place and other[place] != ONE:
        raise call.unclear("a shared input has a size of its own where the rows are")
    return place


@rule("Gemm")
def gemm(call: Call) -> Result:
    """As `matmul` of two matrices, either of which may be transposed, plus a third."""
    a, b = (_matrix(call, index, name) for index, name in ((0, "transA"), (1, "transB")))
    result = _matmul(call, a, b, [a, b])
    added = call.optional(2)
    return result if added is None else broadcast(call, [result, added])


def _matrix(call: Call, index: int, name: str) -> Flow:
    flow = call.input(index)
    if not call.integer(name, 0) or flow.shape is None:
        return flow
    sizes = (*flow.shape[:-2], *flow.shape[:-3:-1])
    if flow.kind is not Kind.ROWS:
        return Flow(flow.kind, shape=sizes, why=flow.why)
    place = flow.axis - len(sizes)
    return rows({-1: -2, -2: -1}.get(place, place), sizes)


@rule("Einsum")
def einsum(call: Call) -> Result:
    """The rows' letter must be the same in all inputs and stand in the output."""
    flows = call.given()
    plain = without_rows(flows)
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    left, arrow, right = call.text("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow or "." in left or len(terms) != len(flows):
        raise call.unclear("its equation is not understood")
    sizes: dict[str, Size | None] = {}
    letters: set[str] = set()
    for term, flow in zip(terms, flows, strict=True):
        if flow.shape is None or len(term) != len(flow.shape) or len(set(term)) < len(term):
            raise call.unclear("its equation is not understood")
        sizes.update(zip(term, flow.shape, strict=True))
        if flow.kind is Kind.ROWS:
            letters.add(term[flow.axis])
    if len(letters) > 1:
        return mixed(f"{call.node} combines each row with every other")
    letter = letters.pop()
    for term, flow in zip(terms, flows, strict=True):
        if flow.kind is not Kind.ROWS and (letter in term or flow.kind is Kind.COUNT):
            raise call.unclear("a shared input has a size of its own where the rows are")
    if letter not in right:
        return mixed(f"{call.node} adds up all rows")
    with_rows = next(flow for flow in flows if flow.kind is Kind.ROWS)
    sizes[letter] = with_rows.size(with_rows.axis)
    return rows(right.index(letter), [sizes[each] for each in right])


@rule("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DeformConv", "MaxPool", "AveragePool", "LpPool")
@rule("FusedConv", "QLinearAveragePool", "NhwcConv", domain="com.microsoft")
def window(call: Call) -> Result:
    """A window over [rows,channels,...]."""
    flow = call.input(0)
    plain = without_rows(call.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if flow.kind is not Kind.ROWS:
        return mixed(f"{call.node} has weights that depend on the rows")
    if any(other.kind is not Kind.SHARED for other in call.given()[1:]):
        raise call.unclear("another input than the first depends on the rows")
    rank = len(flow.shape or ())
    channels_apart = flow.axis == 1 and "Pool" in call.node.operator
    if flow.axis and (call.node.operator == "NhwcConv" or call.integer("channels_last", 0)):
        raise call.unclear("its rows are not its first dimension")
    if (flow.axis == 1 and not channels_apart) or (flow.axis > 1 and not _is_one_wide(call, flow.axis - 2, rank - 2)):
        raise call.unclear("the window goes along the rows")
    sizes = [flow.size(axis) if axis == flow.axis else call.fresh(axis) for axis in range(rank)]
    # The second output of MaxPool counts elements from the beginning of the batch.
    second = Flow(Kind.UNKNOWN, why=f"{call.node}: its indices count from the first row")
    return [rows(flow.axis, sizes), *([second] * (len(call.node.outputs) - 1))]


def _is_one_wide(call: Call, axis: int, rank: int) -> bool:
    """Whether a window takes one place along ``axis`` of the picture's ``rank``, and all of them in turn."""
    if {"output_padding", "output_shape"} & set(call.node.attributes):
        return False
    widths = call.integers("kernel_shape")
    if widths is None:
        sizes = (call.input(1).shape or ())[2:] if len(call.inputs) > 1 else ()
        widths = tuple(-1 if size is None or size.number is None else size.number for size in sizes)
    strides = call.integers("strides") or (1,) * rank
    pads = call.integers("pads") or (0,) * (2 * rank)
    whole = len(widths) == len(strides) == rank and len(pads) == 2 * rank
    return whole and widths[axis] == strides[axis] == 1 and pads[axis] == pads[axis + rank] == 0


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call) -> Result:
    """All of [rows,channels,...] but the first two axes."""
    flow = call.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if flow.axis > 1:
        return mixed(f"{call.node} looks at all rows at once")
    return rows(flow.axis, [size if axis < 2 else ONE for axis, size in enumerate(flow.shape or ())])


@rule("RNN", "LSTM", "GRU")
def recurrent(call: Call) -> Result:
    """Goes along the first axis, or the second where the layout says so; the other one of the two counts rows."""
    plain = without_rows(call.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rows_first = call.integer("layout", 0) == 1
    flow = call.input(0)
    if flow.kind is not Kind.ROWS:
        raise call.unclear("another input than the first depends on the rows")
    if flow.axis != (0 if rows_first else 1):
        return mixed(f"{call.node} runs along the rows")
    for index, other in enumerate(call.inputs[1:], start=1):
        _check_recurrent_input(call, index, other, rows_first=rows_first)
    size, steps = flow.size(flow.axis), flow.size(1 - flow.axis)
    directions, hidden = call.fresh("directions"), call.fresh("hidden")
    if rows_first:
        last = rows(0, [size, directions, hidden])
        return [rows(0, [size, steps, directions, hidden]), last, last][: max(len(call.node.outputs), 1)]
    last = rows(1, [directions, size, hidden])
    return [rows(2, [steps, directions, size, hidden]), last, last][: max(len(call.node.outputs), 1)]


def _check_recurrent_input(call: Call, index: int, flow: Flow | None, *, rows_first: bool) -> None:
    if flow is None:
        return
    axis = {4: 0, 5: 0 if rows_first else 1, 6: 0 if rows_first else 1}.get(index)
    if flow.kind is (Kind.SHARED if axis is None else Kind.ROWS) and (axis is None or flow.axis == axis):
        return
    raise call.unclear("an initial state or a length is not that of its row")


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
def within_sequences(call: Call) -> Result:
    """Inputs of [rows,...], each by itself; the first output is of the rank of the first input."""
    if call.node.operator in {"PackedAttention", "GatedRelativePositionBias"}:
        raise call.unclear("its rows come out otherwise")
    plain = without_rows(call.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if any(flow.kind is Kind.COUNT or (flow.kind is Kind.ROWS and flow.axis != 0) for flow in call.given()):
        raise call.unclear("the rows are not its first dimension")
    flow = call.input(0)
    if flow.kind is not Kind.ROWS or flow.shape is None:
        raise call.unclear("its first input does not depend on the rows")
    _require_own_places(call)
    is_packed = call.node.operator == "MultiHeadAttention" and len(flow.shape) > 3
    first = rows(0, [*(flow.shape[:2] if is_packed else flow.shape[:-1]), call.fresh("width")])
    other = Flow(Kind.UNKNOWN, why=f"{call.node}: further outputs are not followed")
    return [first, *([other] * (len(call.node.outputs) - 1))]


def _require_own_places(call: Call) -> None:
    """Raise if an input whose first dimension is no batch has the rows there."""
    own = call.node.domain != "com.microsoft"
    if call.node.operator == "RotaryEmbedding":
        tables = (call.optional(index) for index in ((1, 2) if own else (2, 3)))
        if any(table is not None and table.kind is Kind.ROWS for table in tables):
            raise call.unclear("a table that all rows look into depends on them")
    mask = call.optional(3)
    if call.node.operator == "Attention" and own and mask is not None and mask.kind is Kind.ROWS and mask.rank != 4:
        raise call.unclear("the first dimension of its mask is not the rows'")


@rule(
    "TreeEnsemble", "TreeEnsembleRegressor", "TreeEnsembleClassifier", "LinearRegressor", "LinearClassifier",
    "SVMRegressor", "SVMClassifier", "OneHotEncoder", "FeatureVectorizer", "ZipMap",
    domain="ai.onnx.ml",
)  # fmt: skip
@rule("TfIdfVectorizer")
def features(call: Call) -> Result:
    """Rows of features, [rows,features]."""
    plain = without_rows(call.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    bad = worst(call.given())
    if bad is not None:
        return bad
    for flow in call.given():
        if flow.kind is Kind.COUNT or (flow.kind is Kind.ROWS and (flow.axis != 0 or len(flow.shape or ()) < 2)):
            raise call.unclear("its rows are not the first of two dimensions")
    with_rows = [flow for flow in call.given() if flow.kind is Kind.ROWS]
    flow = with_rows[0]
    if any(not same_rows(flow.size(0), other.size(0)) for other in with_rows):
        raise call.unclear("rows come in parts of different sizes")
    targets = {"LinearRegressor": ("targets", 1), "TreeEnsembleRegressor": ("n_targets", 0)}.get(call.node.operator)
    width = call.integer(*targets) if targets else 0
    wide = rows(0, [flow.size(0), Size(width) if width > 0 else call.fresh("width")])
    if call.node.operator.endswith("Classifier"):
        return [rows(0, [flow.size(0)]), wide]
    if call.node.operator == "OneHotEncoder":
        return rows(0, [*(flow.shape or ()), call.fresh("width")])
    return wide


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def extract_features(call: Call) -> Result:
    """Take elements along the last axis by numbers, of which those of all rows come out one behind the other."""
    table, indices = call.input(0), call.input(1)
    plain = without_rows([table, indices])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if table.kind is Kind.ROWS and indices.kind is Kind.SHARED and table.axis < len(table.shape or ()) - 1:
        return rows(table.axis, [*(table.shape or ())[:-1], call.fresh("taken")])
    outermost = product((indices.shape or ())[: indices.axis]) == ONE
    if table.kind is Kind.SHARED and table.rank == 1 and outermost:
        return rows(1, [ONE, product(indices.shape or ())])
    raise call.unclear("it is not known where the rows come out")
