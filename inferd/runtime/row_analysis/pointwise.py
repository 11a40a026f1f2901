"""Element-by-element operators with broadcasting, which keep rows apart on any axis."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import (
    ONE,
    REVERSED_NAME,
    Flow,
    Kind,
    Size,
    count,
    either,
    mixed,
    rows,
    same_rows,
    shared,
    unknown,
)
from inferd.runtime.row_analysis.operation import Operation, Result, rule, without_rows

_UNARY = (  # noqa: SIM905  (one line for each would be a page long)
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Swish Tan Tanh ThresholdedRelu"
).split()
_BINARY = (  # noqa: SIM905
    "And BitShift BitwiseAnd BitwiseOr BitwiseXor Clip Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod "
    "Or PRelu Pow StringConcat Sum Xor"
).split()


#: ONNX type numbers wide enough for sizes (FLOAT, INT32, INT64, DOUBLE, UINT32, UINT64), and that of BOOL.
_WIDE = frozenset({1, 6, 7, 11, 12, 13})
_BOOL = 9

#: Operators that compute each output element from the input elements at the same index.
ELEMENT_BY_ELEMENT = (*_UNARY, *_BINARY, "RegexFullMatch", "Add", "Sub", "Mul", "Div")


@rule(*_UNARY, *_BINARY, "RegexFullMatch")
@rule("BiasGelu", "FastGelu", "Gelu", "QuickGelu", "BiasAdd", domain="com.microsoft")
def pointwise(op: Operation) -> Result:
    """Each output element depends on the input elements at the same index."""
    return broadcast(op, op.given())


@rule("Identity", "Cast")
def identity(op: Operation) -> Result:
    """Elements keep their value, except as booleans and in types too narrow for sizes."""
    flow = op.input(0)
    if op.node.operator == "Identity" or flow.elements is None or op.integer("to", 0) in _WIDE:
        return flow
    is_bool = op.integer("to", 0) == _BOOL
    elements = [None if each is None or not is_bool else _as_bool(each) for each in flow.elements]
    return replace(flow, elements=tuple(elements))


def _as_bool(size: Size) -> Size | None:
    return None if size.number is None else Size(int(size.number != 0))


@rule("CastLike", "QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain="com.microsoft")
@rule("Scaler", "Imputer", "LabelEncoder", "Binarizer", "CategoryMapper", "Normalizer", domain="ai.onnx.ml")
def like_first_input(op: Operation) -> Result:
    """The other inputs are scales, tables or types."""
    first, others = op.input(0), op.given()[1:]
    if op.node.operator == "CastLike":
        return first
    bad = without_rows([first, *others])
    if bad is not None:
        return bad if bad.kind in {Kind.MIXED, Kind.UNKNOWN} else Flow(bad.kind, shape=first.shape)
    if first.kind is not Kind.ROWS or any(other.kind is not Kind.SHARED for other in others):
        raise op.undecided("its scale depends on the rows")
    if op.node.operator == "Normalizer" and first.axis == len(first.shape or ()) - 1:
        return mixed(f"{op.node} normalises along the rows")
    return first


@rule("StringNormalizer")
def normalize_text(op: Operation) -> Result:
    """Element by element, unless stop words are dropped."""
    if "stopwords" in op.node.attributes:
        raise op.undecided("it drops elements")
    return op.input(0)


@rule("Dropout")
def dropout(op: Operation) -> Result:
    """The identity outside of training."""
    training = op.optional(2)
    if training is not None and (training.kind is not Kind.SHARED or training.elements != (Size(0),)):
        # Trials may not show what is drawn rarely.
        return replace(unknown(f"{op.node}: it may draw random numbers"), doubtful=True)
    return op.input(0)


@rule("Add", "Sub", "Mul", "Div")
def arithmetic(op: Operation) -> Result:
    """As `pointwise`; computes the elements of shape tensors."""
    result = broadcast(op, op.given())
    if result.kind not in {Kind.SHARED, Kind.COUNT}:
        return result
    one, other = op.input(0).elements, op.input(1).elements
    # Elements are paired one by one for at most one dimension only.
    is_list = result.rank is not None and result.rank <= 1
    if one is None or other is None or not is_list or not (len(one) == len(other) or 1 in {len(one), len(other)}):
        return result
    length = max(len(one), len(other))
    pairs = zip(one * length if len(one) == 1 else one, other * length if len(other) == 1 else other, strict=False)
    return _with_elements(
        result, [_result_element(op, index, a, b) for index, (a, b) in enumerate(list(pairs)[:length])]
    )


def _result_element(op: Operation, index: int, a: Size | None, b: Size | None) -> Size | None:
    """Return the result for two elements; an unknown sum or quotient without row counts gets its own name."""
    operator = op.node.operator
    found = _computed(operator, a, b)
    if found is not None or a is None or b is None or operator not in {"Add", "Div"}:
        return found
    return None if a.counts_rows or b.counts_rows or min(a.factor, b.factor) <= 0 else op.fresh(f"element {index}")


def _computed(operator: str, a: Size | None, b: Size | None) -> Size | None:
    if a is None or b is None:
        return None
    if operator in {"Mul", "Div"}:
        return a.times(b) if operator == "Mul" else a.over(b)
    if b == Size(0):
        return a
    if operator == "Add" and a == Size(0):
        return b
    if a.number is None or b.number is None:
        return None
    return Size(a.number + b.number if operator == "Add" else a.number - b.number)


def _with_elements(flow: Flow, elements: Sequence[Size | None]) -> Flow:
    """Return ``flow`` with ``elements``, which may show that it does not depend on the number of rows."""
    known = all(element is not None and not element.counts_rows for element in elements)
    return shared(flow.shape, elements) if known or flow.kind is Kind.SHARED else count(flow.shape, elements)


@rule("Equal")
def equal(op: Operation) -> Result:
    """As `pointwise`; compares elements of shape tensors, which exporters do with -1 before Expand."""
    result = broadcast(op, op.given())
    one, other = op.input(0).elements, op.input(1).elements
    if result.kind not in {Kind.SHARED, Kind.COUNT} or one is None or other is None or len(one) != len(other):
        return result
    if result.rank is None or result.rank > 1:
        return result
    return _with_elements(result, [_equal(a, b) for a, b in zip(one, other, strict=True)])


def _equal(a: Size | None, b: Size | None) -> Size | None:
    if a is None or b is None:
        return None
    if a.number is not None and b.number is not None:
        return Size(int(a.number == b.number))
    known, named = (a.number, b) if a.number is not None else (b.number, a)
    return Size(0) if known is not None and known < 0 < named.factor else None


@rule("Where")
def where(op: Operation) -> Result:
    """As `pointwise`; computes the elements of shape tensors."""
    condition, one, other = (op.input(index).elements for index in range(3))
    result = broadcast(op, op.given())
    if condition is not None and op.input(0).kind is Kind.SHARED and len({*condition}) == 1:
        chosen = _chosen(op, condition[0])
        if chosen is not None:
            return chosen
    if result.kind not in {Kind.SHARED, Kind.COUNT} or condition is None or one is None or other is None:
        return result
    if not len(condition) == len(one) == len(other) or result.rank is None or result.rank > 1:
        return result
    elements = [
        None if which is None or which.number is None else (a if which.number else b)
        for which, a, b in zip(condition, one, other, strict=True)
    ]
    return _with_elements(result, elements)


def _chosen(op: Operation, which: Size | None) -> Flow | None:
    """Return the input that a constant condition selects, None if unknown or if broadcasting changes its shape."""
    if which is None or which.number is None:
        return None
    flow = op.input(1 if which.number else 2)
    shape = broadcast_shape([each.shape for each in op.given()])
    return flow if shape is not None and tuple(shape) == flow.shape else None


def broadcast(op: Operation, flows: Sequence[Flow]) -> Flow:
    """Return the result of broadcasting ``flows``."""
    plain = without_rows(flows)
    shape = broadcast_shape([flow.shape for flow in flows])
    if plain is None and shape is not None and _broadcasts_padding(flows, len(shape)):
        return mixed(f"{op.node} sees how many elements the largest row has")
    if plain is not None:
        return replace(plain, shape=None if shape is None else tuple(shape))
    if shape is None:
        counted = next((flow for flow in flows if flow.kind is Kind.COUNT), None)
        return _with_a_count(op, counted) if counted else unknown(f"{op.node}: the rank of an input is not known")
    found = _broadcast_rows(op, flows, shape)
    return found if found.kind is Kind.ROWS else replace(found, shape=tuple(shape))


def _broadcasts_padding(flows: Sequence[Flow], rank: int) -> bool:
    """Whether a dimension padded to the largest row is broadcast with one of another size."""
    for position in range(-rank, 0):
        sizes = {flow.size(position) for flow in flows if len(flow.shape or ()) >= -position} - {ONE}
        if len(sizes) > 1 and any(size is not None and size.padding is not None for size in sizes):
            return True
    return False


def _broadcast_rows(op: Operation, flows: Sequence[Flow], shape: list[Size | None]) -> Flow:
    with_rows = [flow for flow in flows if flow.kind is Kind.ROWS]
    positions = {flow.axis - len(flow.shape or ()) for flow in with_rows}
    if len(positions) > 1:
        return mixed(f"{op.node} combines each row with every other")
    position = positions.pop()
    sizes = [flow.size(flow.axis) for flow in with_rows]
    if not all(same_rows(sizes[0], size) for size in sizes):
        turned = any(size is not None and REVERSED_NAME in size.names for size in sizes)
        return mixed(f"{op.node} combines rows with others") if turned else unknown(f"{op.node}: rows in parts")
    for flow in flows:
        bad = _broadcast_over_rows(op, flow, position)
        if bad is not None:
            return bad
    # The simplest: two sizes that must be equal may differ in names.
    shape[position] = min(sizes, key=lambda size: 0 if size is None else len(size.names))
    return rows(position, shape)


def _broadcast_over_rows(op: Operation, flow: Flow, position: int) -> Flow | None:
    """Return the result if ``flow``, broadcast over rows, changes what is known of them; else None."""
    if flow.kind is Kind.COUNT:
        return _with_a_count(op, flow)
    if flow.kind is not Kind.SHARED or flow.shape is None or len(flow.shape) < -position or flow.size(position) == ONE:
        return None
    return unknown(f"{op.node}: a shared input has a size other than 1 along the rows")


def _with_a_count(op: Operation, flow: Flow) -> Flow:
    if flow.elements is not None and any(element is not None and element.counts_rows for element in flow.elements):
        return mixed(f"{op.node} computes with the number of rows")
    # It may take effect only in batches larger than any trial.
    return replace(unknown(f"{op.node}: an input may depend on the number of rows"), doubtful=True)


def broadcast_shape(shapes: Sequence[tuple[Size | None, ...] | None]) -> list[Size | None] | None:
    """Return the shape of broadcast arrays, None if a rank is unknown."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None
    rank = max(map(len, known), default=0)
    return [
        _broadcast_size([shape[position] for shape in known if len(shape) >= -position]) for position in range(-rank, 0)
    ]


def _broadcast_size(sizes: Sequence[Size | None]) -> Size | None:
    found: Size | None = ONE
    for size in sizes:
        if size in {ONE, found}:
            continue
        if found == ONE or found is None or size is None:
            found = size if found == ONE else None
        elif found.number is None and size.number is not None:
            # The named size must be this one or 1.
            found = size
        elif found.number is None or size.number is not None:
            found = either(found, size)
    return found
