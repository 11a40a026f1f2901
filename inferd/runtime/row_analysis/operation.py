"""An operator with the flows of its inputs, as rules receive it, and the table of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inferd.runtime.onnx_file import Graph, Node, Tensor
from inferd.runtime.row_analysis.flow import Flow, Kind, Size, mixed, numbers, worst

#: Result of a rule: one flow for all outputs of the operator, or one for each.
Result = Flow | Sequence[Flow]


class UndecidedError(Exception):
    """A rule cannot decide; the text says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A node of the graph with the flows of its inputs; an omitted input is None.

    ``opset`` is the version of its domain. ``scope`` distinguishes the call sites of a function or branch.
    """

    node: Node
    inputs: tuple[Flow | None, ...]
    opset: int
    scope: str = ""

    def given(self, *indices: int) -> list[Flow]:
        """Return the inputs that are present, of ``indices`` or of all."""
        wanted = indices or range(len(self.inputs))
        return [flow for index in wanted if (flow := self.optional(index)) is not None]

    def input(self, index: int) -> Flow:
        """Return a required input. Raises `UndecidedError`."""
        flow = self.optional(index)
        if flow is None:
            msg = f"{self.node} has no input {index}"
            raise UndecidedError(msg)
        return flow

    def optional(self, index: int) -> Flow | None:
        """Return an input, None if it is omitted."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self._attribute(name)
        if value is None:
            return default
        if not isinstance(value, int):
            raise self.undecided(f"its {name} is not known")
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a list of integers, None if it is omitted."""
        value = self._attribute(name)
        if value is None or isinstance(value, tuple):
            return value
        raise self.undecided(f"its {name} is not known")

    def text(self, name: str, default: str = "") -> str:
        """Return a string attribute."""
        value = self._attribute(name)
        return value if isinstance(value, str) else default

    def tensor(self, name: str) -> Tensor | None:
        """Return a constant attribute, None if it is omitted."""
        value = self._attribute(name)
        return value if isinstance(value, Tensor) else None

    def graph(self, name: str) -> Graph:
        """Return a graph attribute."""
        value = self._attribute(name)
        if not isinstance(value, Graph):
            raise self.undecided(f"it has no {name}")
        return value

    def _attribute(self, name: str) -> "int | tuple[int, ...] | str | Tensor | Graph | None":
        if name in self.node.attributes and self.node.attributes[name] is None:
            # In the body of a function, the caller sets this attribute.
            raise self.undecided(f"its {name} is not known")
        return self.node.attributes.get(name)

    def axes(self, index: int) -> list[int] | None:
        """Return axes that are an attribute in older opsets and input ``index`` in newer ones; None if omitted."""
        listed = self.integers("axes")
        if listed is not None:
            return list(listed)
        flow = self.optional(index)
        if flow is None:
            return None
        found = numbers(flow.elements)
        if found is None:
            raise self.undecided("its axes are not known")
        return found

    def fresh(self, label: object) -> Size:
        """Return an unknown size of the output that is the same for every row."""
        return self.named(self.node.outputs[0] if self.node.outputs else self.node.name, label)

    def named(self, value: str, label: object) -> Size:
        """Return an unknown size of ``value``, by a name that is unique whatever the names in the file."""
        return Size(1, (f"size {self.scope}{value!r}.{label}",))

    def undecided(self, why: str) -> UndecidedError:
        """Return the error to raise when a rule cannot decide."""
        return UndecidedError(f"{self.node}: {why}")


Rule = Callable[[Operation], Result]

#: Rules by domain and operator; "" is ONNX's own domain.
RULES: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register the decorated rule for ``operators``."""

    def register(function: Rule) -> Rule:
        for operator in operators:
            RULES[domain, operator] = function
        return function

    return register


def without_rows(flows: Sequence[Flow], shape: Sequence[Size | None] | None = None) -> Flow | None:
    """Return the result if no input is ROWS, None if one is. MIXED and UNKNOWN propagate."""
    bad = worst(flows)
    if bad is not None:
        return bad
    kinds = {flow.kind for flow in flows}
    if Kind.ROWS in kinds:
        return None
    return Flow(Kind.COUNT if Kind.COUNT in kinds else Kind.SHARED, shape=None if shape is None else tuple(shape))


def single(op: Operation) -> Flow | None:
    """Return the result if the first input is not ROWS, None if it is. Raises unless the others are SHARED."""
    first, others = op.input(0), op.given()[1:]
    bad = worst(op.given())
    if bad is not None:
        return bad
    if any(other.kind is Kind.ROWS or (first.kind is Kind.ROWS and other.kind is Kind.COUNT) for other in others):
        raise op.undecided("an input other than the first depends on the rows")
    return None if first.kind is Kind.ROWS else without_rows(op.given())


def only_rows_of(op: Operation, index: int, others: Sequence[Flow]) -> Flow:
    """Return input ``index``, which must be ROWS while ``others`` are SHARED. Raises `UndecidedError`."""
    flow = op.input(index)
    if flow.kind is not Kind.ROWS or flow.shape is None or any(other.kind is not Kind.SHARED for other in others):
        raise op.undecided("an input other than the first depends on the rows")
    return flow


def position(op: Operation, axis: int, rank: int) -> int:
    """Return ``axis`` as a non-negative index."""
    if not -rank <= axis < rank:
        raise op.undecided(f"axis {axis} is out of range")
    return axis % rank


def mixed_along_rows(op: Operation, shape: Sequence[Size | None] | None = None) -> Flow:
    """Return the result of an operator that combines elements along the rows."""
    found = mixed(f"{op.node} looks at all rows at once")
    return found if shape is None else replace(found, shape=tuple(shape))
