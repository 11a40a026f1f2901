"""Walks a model's graph, functions, branches and loops included, and follows the rows to the outputs. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from inferd.runtime.onnx_file import Graph, ModelFile, Node
from inferd.runtime.row_analysis import (
    concatenation,
    images,
    indexing,
    layers,
    pointwise,
    products,
    reductions,
    reshaping,
    shape_values,
    slicing,
)
from inferd.runtime.row_analysis.control_flow import CONTROL_FLOW, RowDecisionError, control_flow
from inferd.runtime.row_analysis.flow import (
    ROWS_SIZE,
    Flow,
    Kind,
    Size,
    mixed,
    rows,
    shared,
    unknown,
)
from inferd.runtime.row_analysis.operation import RULES, Operation, UndecidedError, without_rows
from inferd.runtime.signature import ModelSignature, TensorSpec

#: Modules imported for the rules that they register.
_RULE_MODULES = (
    pointwise,
    shape_values,
    reshaping,
    concatenation,
    slicing,
    indexing,
    reductions,
    products,
    images,
    layers,
)

#: Operators whose result for a row does not depend on the amount of padding.
_PADDING_SAFE = frozenset(
    (
        *pointwise.ELEMENT_BY_ELEMENT,
        "Cast",
        "Identity",
        "Unsqueeze",
        "Transpose",
        "Gather",
        "Slice",
        "Where",
        "Concat",
        "LabelEncoder",
        "StringSplit",
        "StringNormalizer",
    )
)

#: Operators that cannot mix rows whatever their inputs are.
_NEVER_MIX = frozenset(
    (
        *pointwise.ELEMENT_BY_ELEMENT,
        "Cast",
        "Identity",
        "Unsqueeze",
        "Squeeze",
        "Transpose",
        "Where",
        "Equal",
        "Dropout",
    )
)

_OWN_DOMAINS = frozenset({"", "ai.onnx"})

#: Deepest nesting of functions and subgraphs that is followed.
_DEEPEST = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphAnalysis:
    """Result of the graph analysis for a candidate of batch axes.

    ``mixes`` says which operator combines rows, ``undecided`` what could not be followed; with both empty each row is
    computed from that row alone. ``doubtful``: an operator that can mix rows, possibly for rare numbers only, uses what
    could not be followed; otherwise only operators without a rule do, which trial runs can judge. ``axes`` are the
    batch axes of outputs, as far as they are certain.
    """

    mixes: str = ""
    undecided: str = ""
    doubtful: bool = False
    axes: Mapping[str, int] = field(default_factory=dict)


def analyse(file: ModelFile, signature: ModelSignature) -> GraphAnalysis:
    """Follow the rows of ``signature``'s batched inputs through the graph of ``file`` to its outputs."""
    inputs = {spec.name: _input_flow(spec, signature.loose_dimensions) for spec in signature.inputs}
    outputs = _Walk(file).outputs(inputs)
    axes = {name: flow.axis for name, flow in outputs.items() if flow.is_plain}
    mixes = undecided = ""
    doubtful = False
    for spec in signature.outputs:
        flow = outputs.get(spec.name, unknown("no operator computes it"))
        counts = flow.kind is Kind.COUNT and flow.elements is not None and None not in flow.elements
        if flow.kind is Kind.MIXED or counts or flow.is_padded:
            why = flow.why or ("it is padded to the largest row" if flow.is_padded else "it counts them")
            mixes = mixes or f'output "{spec.name}" depends on the other rows of a batch: {why}'
        elif not (flow.is_plain or (flow.kind is Kind.SHARED and spec.batch_axis is None)):
            # A dependence on the number of rows may show only in batches larger than any trial.
            doubtful = doubtful or flow.doubtful or flow.kind is Kind.COUNT
            undecided = undecided or f'output "{spec.name}": {flow.why or "its rows are not along one axis"}'
    return GraphAnalysis(mixes=mixes, undecided=undecided, doubtful=doubtful, axes=axes)


def _input_flow(spec: TensorSpec, loose: Collection[str]) -> Flow:
    sizes = [
        Size(size)
        if isinstance(size, int)
        else Size(1, (f"axis {axis} of {spec.name}" if size is None or size in loose else f"dimension {size}",))
        for axis, size in enumerate(spec.shape)
    ]
    if spec.batch_axis is None:
        return shared(sizes)
    sizes[spec.batch_axis] = ROWS_SIZE
    return rows(spec.batch_axis, sizes)


class _Walk:
    """One walk through a graph."""

    def __init__(self, file: ModelFile) -> None:
        self._file = file
        self._depth = 0
        self._scope = ""

    def outputs(self, inputs: Mapping[str, Flow]) -> dict[str, Flow]:
        """Return the flows of the outputs of the main graph."""
        graph = self._file.graph
        flows = self._run(graph, dict(inputs))
        return {name: flows[name] for name in graph.outputs if name in flows}

    def _run(self, graph: Graph, known: dict[str, Flow]) -> dict[str, Flow]:
        """Add the flows of all values of ``graph`` to ``known``, and return it."""
        for name, tensor in graph.constants.items():
            known.setdefault(name, shape_values.constant_flow(tensor))
        for node in graph.nodes:
            results = zip(node.outputs, self._results(node, known), strict=False)
            known.update((name, flow) for name, flow in results if name)
        return known

    def _results(self, node: Node, known: Mapping[str, Flow]) -> list[Flow]:
        missing = unknown(f"{node}: an input is not known")
        inputs = tuple(known.get(name, missing) if name else None for name in node.inputs)
        domain = "" if node.domain in _OWN_DOMAINS else node.domain
        op = Operation(node, inputs, self._file.opsets.get(node.domain or "ai.onnx", 0), self._scope)
        try:
            result = self._apply(op, domain, known)
        except RowDecisionError as error:
            result = mixed(str(error))
        except UndecidedError as error:
            result = unknown(str(error))
        # A file need not satisfy the assumptions of a rule, even if the model runs.
        except (IndexError, KeyError, TypeError, ValueError, AssertionError):
            result = unknown(f"{node}: it is not understood")
        if any(flow.is_padded for flow in op.given()) and node.operator not in _PADDING_SAFE:
            result = mixed(f"{node} sees how many elements the largest row has")
        flows = [result] * len(node.outputs) if isinstance(result, Flow) else list(result)
        may_mix = (domain, node.operator) in RULES or node.operator in CONTROL_FLOW
        if may_mix and node.operator not in _NEVER_MIX:
            flows = [replace(flow, doubtful=True) if flow.kind is Kind.UNKNOWN else flow for flow in flows]
        return flows + [missing] * (len(node.outputs) - len(flows))

    def _apply(self, op: Operation, domain: str, known: Mapping[str, Flow]) -> Flow | Sequence[Flow]:
        operator = op.node.operator
        if domain == "" and operator in CONTROL_FLOW:
            return control_flow(op, known, self._deeper)
        body = self._file.functions.get((op.node.domain, operator))
        if body is not None:
            return self._called(op, body)
        rule = RULES.get((domain, operator))
        if rule is not None:
            return rule(op)
        plain = without_rows(op.given())
        # A subgraph may read outer values that are not inputs of the operator.
        has_graph = any(isinstance(value, Graph) for value in op.node.attributes.values())
        if plain is not None and not has_graph:
            return plain
        return unknown(f"{op.node}: this operator has no rule")

    def _called(self, op: Operation, body: Graph) -> list[Flow]:
        bound = {name: flow for name, flow in zip(body.inputs, op.inputs, strict=False) if flow is not None}
        flows = self._deeper(op, body, bound)
        return [flows[name] for name in body.outputs]

    def _deeper(self, op: Operation, graph: Graph, known: dict[str, Flow], label: str = "") -> dict[str, Flow]:
        """Run a nested graph as `_run` does; ``label`` distinguishes the graphs of one operator."""
        if self._depth >= _DEEPEST:
            raise op.undecided("it is nested too deeply")
        outside = self._scope
        self._depth += 1
        self._scope = f"{outside}{op.node.outputs[0] if op.node.outputs else ''!r}{label}/"
        try:
            return self._run(graph, known)
        finally:
            self._depth -= 1
            self._scope = outside
