"""Operators that are whole layers or models: recurrent networks, attention, trees; string splitting; random numbers."""

from dataclasses import replace

from inferd.runtime.row_analysis.flow import FILLED_UP, Flow, Kind, Size, mixed, padded, rows, same_rows, worst
from inferd.runtime.row_analysis.operation import Operation, Result, rule, without_rows


@rule("RNN", "LSTM", "GRU")
def recurrent(op: Operation) -> Result:
    """Iterates over the first axis, or by layout over the second; the other one counts rows."""
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    rows_first = op.integer("layout", 0) == 1
    flow = op.input(0)
    if flow.kind is not Kind.ROWS:
        raise op.undecided("an input other than the first depends on the rows")
    if flow.axis != (0 if rows_first else 1):
        return mixed(f"{op.node} iterates over the rows")
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
    raise op.undecided("an initial state or a length does not belong to its row")


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
    """Inputs of [rows,...], row by row; the first output has the rank of the first input."""
    if op.node.operator in {"PackedAttention", "GatedRelativePositionBias"}:
        raise op.undecided("it changes the layout of the rows")
    plain = without_rows(op.given())
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    if any(flow.kind is Kind.COUNT or (flow.kind is Kind.ROWS and flow.axis != 0) for flow in op.given()):
        raise op.undecided("the rows are not its first dimension")
    flow = op.input(0)
    if flow.kind is not Kind.ROWS or flow.shape is None:
        raise op.undecided("its first input does not depend on the rows")
    _require_batch_dimension(op)
    is_packed = op.node.operator == "MultiHeadAttention" and len(flow.shape) > 3
    first = rows(0, [*(flow.shape[:2] if is_packed else flow.shape[:-1]), op.fresh("width")])
    other = Flow(Kind.UNKNOWN, why=f"{op.node}: further outputs are not followed")
    return [first, *([other] * (len(op.node.outputs) - 1))]


def _require_batch_dimension(op: Operation) -> None:
    """Raise if an input whose first dimension is not a batch has the rows there."""
    own = op.node.domain != "com.microsoft"
    if op.node.operator == "RotaryEmbedding":
        tables = (op.optional(index) for index in ((1, 2) if own else (2, 3)))
        if any(table is not None and table.kind is Kind.ROWS for table in tables):
            raise op.undecided("a table shared by all rows depends on them")
    mask = op.optional(3)
    if op.node.operator == "Attention" and own and mask is not None and mask.kind is Kind.ROWS and mask.rank != 4:
        raise op.undecided("the first dimension of its mask is not a batch")


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


@rule("StringSplit")
def string_split(op: Operation) -> Result:
    """The parts of each string, padded to the largest number of parts."""
    flow = op.input(0)
    plain = without_rows([flow])
    if plain is not None:
        return Flow(plain.kind, why=plain.why)
    parts = rows(flow.axis, [*(flow.shape or ()), padded(0, op.fresh("parts"))])
    return [replace(parts, why=FILLED_UP), replace(flow, why="")]


@rule("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")
@rule("BiasDropout", "BitmaskBiasDropout", "BitmaskDropout", "Sampling", domain="com.microsoft")
def random(op: Operation) -> Result:
    """Undecided: not deterministic."""
    raise op.undecided("it draws random numbers")
