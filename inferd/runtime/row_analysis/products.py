"""Matrix products and sums of products."""

from collections.abc import Sequence
from dataclasses import replace

from inferd.runtime.row_analysis.flow import ONE, Flow, Kind, Size, mixed, rows, same_rows
from inferd.runtime.row_analysis.operation import Operation, Result, rule, single, without_rows
from inferd.runtime.row_analysis.pointwise import broadcast, broadcast_shape


@rule("MatMul")
def matmul(op: Operation) -> Result:
    """Sum over the last axis of the first input and the second to last of the second."""
    return _matmul(op, op.input(0), op.input(1), op.given())


@rule("MatMulInteger")
@rule("MatMulInteger", "MatMulIntegerToFloat", domain="com.microsoft")
def matmul_integer(op: Operation) -> Result:
    """As `matmul`, with scales and zero points after the two operands."""
    return _matmul(op, op.input(0), op.input(1), op.given())


@rule("QLinearMatMul")
def matmul_quantized(op: Operation) -> Result:
    """As `matmul`, with scales and zero points between the two operands."""
    return _matmul(op, op.input(0), op.input(3), op.given())


@rule("MatMulNBits", "FusedMatMul", "TransposeMatMul", "FusedGemm", domain="com.microsoft")
def matmul_extended(op: Operation) -> Result:
    """As `matmul`, unless batch dimensions are transposed."""
    if any(op.integer(name, 0) for name in ("transBatchA", "transBatchB")):
        raise op.undecided("it transposes batch dimensions")
    if op.node.operator == "MatMulNBits":
        flow, plain = op.input(0), single(op)
        if plain is not None:
            return plain
        if flow.axis == len(flow.shape or ()) - 1:
            return mixed(f"{op.node} sums over the rows")
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
    axis = _rows_axis(op, a, b, left, right)
    if isinstance(axis, Flow):
        return replace(axis, shape=tuple(sizes))
    # A vector operand has no batch dimensions, and one of the last axes disappears.
    is_shifted = len(b.shape) == 1 or (len(a.shape) == 1 and axis <= -3)
    axis = axis + 1 if is_shifted else axis
    sizes[axis] = a.size(a.axis) if a.kind is Kind.ROWS else b.size(b.axis)
    return rows(axis, sizes)


def _rows_axis(
    op: Operation, a: Flow, b: Flow, left: Sequence[Size | None], right: Sequence[Size | None]
) -> int | Flow:
    """Return the axis of the rows, counted from the end of [..., m, n], or a MIXED result."""
    a_axis = a.axis - len(a.shape or ()) if a.kind is Kind.ROWS else None
    b_axis = b.axis - len(b.shape or ()) if b.kind is Kind.ROWS else None
    if b_axis == -1 and len(b.shape or ()) == 1:
        b_axis = -2
    if a_axis == -1 or b_axis == -2:
        return mixed(f"{op.node} sums over the rows")
    if a_axis is not None and b_axis is not None:
        if a_axis != b_axis or a_axis > -3:
            return mixed(f"{op.node} combines each row with every other")
        if not same_rows(a.size(a.axis), b.size(b.axis)):
            raise op.undecided("rows come in parts of different sizes")
        return a_axis
    axis = a_axis if a_axis is not None else b_axis
    assert axis is not None
    other = right if a_axis is not None else left
    if axis <= -3 and len(other) >= -axis and other[axis] != ONE:
        raise op.undecided("a shared input has a size other than 1 along the rows")
    return axis


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
    axis = flow.axis - len(sizes)
    return rows({-1: -2, -2: -1}.get(axis, axis), sizes)


@rule("Einsum")
def einsum(op: Operation) -> Result:
    """The letter of the rows must be the same in all inputs and occur in the output."""
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
            raise op.undecided("a shared input has a size other than 1 along the rows")
    if letter not in right:
        return mixed(f"{op.node} sums over the rows")
    with_rows = next(flow for flow in flows if flow.kind is Kind.ROWS)
    sizes[letter] = with_rows.size(with_rows.axis)
    return rows(right.index(letter), [sizes[each] for each in right])
