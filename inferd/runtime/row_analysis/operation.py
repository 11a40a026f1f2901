"""One operator as a rule sees it, and the table that rules are in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.runtime.onnx_file import Graph, Node, Tensor
from inferd.runtime.row_analysis.flow import Flow, Kind, Size, numbers, shared, unknown, worst

#: What a rule returns: one flow for all outputs of the operator, or one for each.
Result = Flow | Sequence[Flow]


class UndecidedError(Exception):
    """A rule cannot say anything; the text says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator with what is known of its inputs; an input that is left out is None.

    ``opset`` is of its domain. ``scope`` tells the places apart from which one function or branch is entered.
    """

    node: Node
    inputs: tuple[Flow | None, ...]
    opset: int
    scope: str = ""

    def given(self, *indices: int) -> list[Flow]:
        """Return the inputs that there are, of ``indices`` or of all."""
        wanted = indices or range(len(self.inputs))
        return [flow for index in wanted if (flow := self.optional(index)) is not None]

    def input(self, index: int) -> Flow:
        """Return an input that must be there."""
        flow = self.optional(index)
        if flow is None:
            msg = f"{self.node} has no input {index}"
            raise UndecidedError(msg)
        return flow

    def optional(self, index: int) -> Flow | None:
        """Return an input that may be left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """Return an attribute."""
        value = self._attribute(name)
        if value is None:
            return default
        if not isinstance(value, int):
            raise self.undecided(f"its {name} is not known")
        return value

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return an attribute that is a list, None if it is left out."""
        value = self._attribute(name)
        if value is None or isinstance(value, tuple):
            return value
        raise self.undecided(f"its {name} is not known")

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute."""
        value = self._attribute(name)
        return value if isinstance(value, str) else default

    def graph(self, name: str) -> Graph:
        """Return an attribute."""
        value = self._attribute(name)
        if not isinstance(value, Graph):
            raise self.undecided(f"it has no {name}")
        return value

    def _attribute(self, name: str) -> "int | tuple[int, ...] | str | Tensor | Graph | None":
        if name in self.node.attributes and self.node.attributes[name] is None:
            # In the body of a function, an attribute that is that the caller passes on.
            raise self.undecided(f"its {name} is not known")
        return self.node.attributes.get(name)

    def axes(self, index: int) -> list[int] | None:
        """Return axes that are an attribute in older operator sets and input ``index`` in newer; None if left out."""
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
        """Return a size that is the same for every row, whatever it is."""
        return self.named(self.node.outputs[0] if self.node.outputs else self.node.name, label)

    def named(self, value: str, label: object) -> Size:
        """Return a size of ``value``, by a name that no file can make equal to another one."""
        return Size(1, (f"size {self.scope}{value!r}.{label}",))

    def undecided(self, why: str) -> UndecidedError:
        """Return the error to raise when nothing can be said."""
        return UndecidedError(f"{self.node}: {why}")


Rule = Callable[[Operation], Result]

#: Rules by domain and name of the operator; "" is ONNX's own domain.
RULES: dict[tuple[str, str], Rule] = {}


def rule(*operators: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Enter the decorated rule into the table."""

    def enter(function: Rule) -> Rule:
        for operator in operators:
            RULES[domain, operator] = function
        return function

    return enter


def without_rows(flows: Sequence[Flow], shape: Sequence[Size | None] | None = None) -> Flow | None:
    """Return what comes of inputs none of which has rows, None if one has; MIXED and UNKNOWN go on as they are."""
    bad = worst(flows)
    if bad is not None:
        return bad
    kinds = {flow.kind for flow in flows}
    if Kind.ROWS in kinds:
        return None
    return Flow(Kind.COUNT if Kind.COUNT in kinds else Kind.SHARED, shape=None if shape is None else tuple(shape))


def single(op: Operation) -> Flow | None:
    """Return what comes of the inputs if the first has no rows, None if it has; raise unless the others are shared."""
    first, others = op.input(0), op.given()[1:]
    bad = worst(op.given())
    if bad is not None:
        return bad
    if any(other.kind is Kind.ROWS or (first.kind is Kind.ROWS and other.kind is Kind.COUNT) for other in others):
        raise op.undecided("another input than the first depends on the rows")
    return None if first.kind is Kind.ROWS else without_rows(op.given())


def only_rows_of(op: Operation, index: int, others: Sequence[Flow]) -> Flow:
    """Return input ``index``, which must have rows while ``others`` are shared. Raises `UndecidedError`."""
    flow = op.input(index)
    if flow.kind is not Kind.ROWS or flow.shape is None or any(other.kind is not Kind.SHARED for other in others):
        raise op.undecided("rows are where it is not known what they do")
    return flow


def position(op: Operation, axis: int, rank: int) -> int:
    """Return ``axis`` counted from the front."""
    if not -rank <= axis < rank:
        raise op.undecided(f"there is no axis {axis}")
    return axis % rank


__all__ = [
    "RULES",
    "Operation",
    "Result",
    "Rule",
    "UndecidedError",
    "only_rows_of",
    "position",
    "rule",
    "shared",
    "single",
    "unknown",
    "without_rows",
]
