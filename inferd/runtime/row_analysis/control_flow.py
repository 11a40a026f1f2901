"""Control flow: the rules of If, Loop and Scan, whose subgraphs read outer values."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inferd.runtime.onnx_file import Graph
from inferd.runtime.row_analysis.flow import ONE, Flow, Kind, Size, joined, mixed, rows, shared, worst
from inferd.runtime.row_analysis.operation import Operation

#: Runs a subgraph of an operator on known values; the label distinguishes the subgraphs of one operator.
RunBody = Callable[[Operation, Graph, dict[str, Flow], str], dict[str, Flow]]

#: Iterations after which a loop-carried value without a fixed point is unknown.
_MOST_LOOP_ROUNDS = 4


class RowDecisionError(Exception):
    """The rows together decide what runs; the text says where."""


def control_flow(op: Operation, known: Mapping[str, Flow], run_body: RunBody) -> Sequence[Flow]:
    """Return the outputs of If, Loop or Scan with the outer values ``known``.

    Raises `RowDecisionError` or `UndecidedError`.
    """
    return _RULES[op.node.operator](op, known, run_body)


def _if(op: Operation, known: Mapping[str, Flow], run_body: RunBody) -> Sequence[Flow]:
    condition = op.input(0)
    if condition.kind in {Kind.ROWS, Kind.MIXED}:
        _require_shared(op, condition, "chooses a branch by all rows at once")
    names: tuple[str, ...] = ("then_branch", "else_branch")
    decided = condition.elements[0] if condition.elements else None
    if decided is not None and decided.number is not None:
        names = ("then_branch",) if decided.number else ("else_branch",)
    results = []
    for name in names:
        graph = op.graph(name)
        flows = run_body(op, graph, dict(known), name)
        results.append([flows[output] for output in graph.outputs])
    chosen = [
        _named(op, f"branch {number}", flows[0], flows[-1], joined(flows[0], flows[-1], str(op.node)))
        for number, flows in enumerate(zip(*results, strict=True))
    ]
    if condition.kind is Kind.SHARED or any(flow.kind is Kind.MIXED for flow in chosen):
        return chosen
    raise op.undecided("its condition may depend on the rows")


def _loop(op: Operation, known: Mapping[str, Flow], run_body: RunBody) -> Sequence[Flow]:
    body = op.graph("body")
    for flow in (op.optional(0), op.optional(1)):
        if flow is not None:
            _require_shared(op, flow, "iterates as often as all rows together say")
    states = list(op.given(*range(2, len(op.inputs)))) if len(op.inputs) > 2 else []
    begins = op.optional(1)
    goes_on = shared([], [ONE] if begins is None or begins.elements == (ONE,) else None)
    flows: dict[str, Flow] = {}
    for _ in range(_MOST_LOOP_ROUNDS):
        bound = dict(zip(body.inputs, [shared([]), goes_on, *states], strict=True))
        flows = run_body(op, body, {**known, **bound}, "")
        condition = flows[body.outputs[0]]
        _require_shared(op, condition, "iterates as often as all rows together say")
        after = _widened(op, states, [flows[name] for name in body.outputs[1:]])
        if after == states and goes_on.elements in {None, condition.elements}:
            break
        states = after
        if goes_on.elements != condition.elements:
            goes_on = shared([])
    else:
        raise op.undecided("its loop-carried values could not be followed")
    collected = [flows[name] for name in body.outputs[1 + len(states) :]]
    rounds = op.optional(0)
    steps = rounds.elements[0] if rounds and rounds.elements and goes_on.elements else None
    return [*states, *(_stacked(op, flow, 0, steps) for flow in collected)]


def _scan(op: Operation, known: Mapping[str, Flow], run_body: RunBody) -> Sequence[Flow]:
    body = op.graph("body")
    scanned = op.integer("num_scan_inputs", 0)
    first = len(op.inputs) - scanned
    states = list(op.given(*range(first))) if first else []
    axes = op.integers("scan_input_axes") or (0,) * scanned
    slices = [_slice(op, op.input(first + index), axis) for index, axis in enumerate(axes)]
    steps = op.input(first).size(axes[0])
    if not states and any(flow.kind is Kind.MIXED for flow in slices) and worst(op.given()) is None:
        raise op.undecided("it scans the rows without a state")
    flows: dict[str, Flow] = {}
    for _ in range(_MOST_LOOP_ROUNDS):
        bound = dict(zip(body.inputs, [*states, *slices], strict=True))
        flows = run_body(op, body, {**known, **bound}, "")
        after = _widened(op, states, [flows[name] for name in body.outputs])
        if after == states:
            break
        states = after
    else:
        raise op.undecided("its state could not be followed")
    collected = [flows[name] for name in body.outputs[len(states) :]]
    out_axes = op.integers("scan_output_axes") or (0,) * len(collected)
    steps = None if _may_count_rows(steps) else steps
    return [*states, *(_stacked(op, flow, axis, steps) for flow, axis in zip(collected, out_axes, strict=True))]


_RULES = {"If": _if, "Loop": _loop, "Scan": _scan}

#: Operators with subgraphs that this module knows.
CONTROL_FLOW = frozenset(_RULES)


def _require_shared(op: Operation, flow: Flow, effect: str) -> None:
    """Raise unless ``flow`` is SHARED: a decision computed from the rows mixes them."""
    if flow.kind is Kind.SHARED:
        return
    if flow.kind in {Kind.ROWS, Kind.MIXED}:
        raise RowDecisionError(f"{op.node} {effect}{f' ({flow.why})' if flow.why else ''}")
    raise op.undecided("its condition may depend on the rows")


def _widened(op: Operation, states: Sequence[Flow], after: Sequence[Flow]) -> list[Flow]:
    """Return what holds for ``states`` both before and after an iteration.

    A size that changes gets a name of its own, so that iteration reaches a fixed point.
    """
    return [
        _named(op, f"state {number}", one, other, joined(one, other, str(op.node)))
        for number, (one, other) in enumerate(zip(states, after, strict=False))
    ]


def _named(op: Operation, label: str, one: Flow, other: Flow, both: Flow) -> Flow:
    """Return ``both`` with a name for each size that differs between ``one`` and ``other``."""
    if both.shape is None or one.shape is None or other.shape is None:
        return both
    sizes = [
        op.fresh(f"{label} {axis}") if size is None and not _may_count_rows(a) and not _may_count_rows(b) else size
        for axis, (size, a, b) in enumerate(zip(both.shape, one.shape, other.shape, strict=True))
    ]
    return replace(both, shape=tuple(sizes))


def _may_count_rows(size: Size | None) -> bool:
    return size is None or size.counts_rows


def _slice(op: Operation, flow: Flow, axis: int) -> Flow:
    """Return one step of a value scanned along ``axis``."""
    bad = worst([flow])
    if bad is not None:
        return bad
    if flow.shape is None:
        raise op.undecided("a rank is not known")
    axis %= len(flow.shape)
    sizes = [size for at, size in enumerate(flow.shape) if at != axis]
    if flow.kind is not Kind.ROWS:
        return Flow(flow.kind, shape=tuple(sizes))
    if axis == flow.axis:
        return mixed(f"{op.node} iterates over the rows")
    return rows(flow.axis - (axis < flow.axis), sizes)


def _stacked(op: Operation, flow: Flow, axis: int, steps: Size | None = None) -> Flow:
    """Return the ``steps`` values of ``flow`` that a loop collects along a new ``axis``."""
    if flow.shape is None:
        return flow
    axis %= len(flow.shape) + 1
    sizes = [*flow.shape[:axis], steps or op.fresh("steps"), *flow.shape[axis:]]
    return (
        rows(flow.axis + (axis <= flow.axis), sizes) if flow.kind is Kind.ROWS else Flow(flow.kind, shape=tuple(sizes))
    )
