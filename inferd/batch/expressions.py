"""Compile ``--where``, comparisons, arithmetic and logic over columns in Python's syntax, to a filter of Arrow.

A comparison with null is null, and a row passes only if the filter is true for it; ``in`` is true or false, as in
Python. ``/`` keeps fractions. Divisions by zero are errors, as are integers that overflow, or have more than 53 bits
beside floats.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import acero

from inferd.batch.errors import UsageError, check_known
from inferd.plain_text import clipped, escaped

#: An expression of pyarrow, which has no types.
Expression = Any

_BINARY: dict[type[ast.AST], Callable[[Expression, Expression], Expression]] = {
    ast.And: lambda left, right: left & right,
    ast.Or: lambda left, right: left | right,
    ast.BitAnd: lambda left, right: left & right,
    ast.BitOr: lambda left, right: left | right,
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
    # Between integers Arrow's own division drops the fraction.
    ast.Div: lambda left, right: left * _scalar(1.0) / right,
}

_COMPARISONS: dict[type[ast.AST], Callable[[Expression, Expression], Expression]] = {
    ast.Eq: lambda left, right: left == right,
    ast.NotEq: lambda left, right: left != right,
    ast.Lt: lambda left, right: left < right,
    ast.LtE: lambda left, right: left <= right,
    ast.Gt: lambda left, right: left > right,
    ast.GtE: lambda left, right: left >= right,
}

_UNARY: dict[type[ast.AST], Callable[[Expression], Expression]] = {
    ast.Not: lambda value: ~value,
    ast.Invert: lambda value: ~value,
    ast.USub: pc.negate_checked,
    ast.UAdd: lambda value: value,
}

#: Functions for literals that Python's syntax lacks.
_MOMENTS: dict[str, Callable[[str], object]] = {"date": date.fromisoformat, "timestamp": datetime.fromisoformat}

#: A text in quotes, which may contain backquotes; a name in backquotes; or a backquote without a second one.
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?P<name>`[^`]+`)|(?P<open>`)""")

_LINE_BREAKS = re.compile(r"[\r\n\t\f\v]")

#: Hints for the syntax of other languages.
_HINTS = (
    (re.compile(r"(?<![=!<>])=(?!=)"), "write == to compare"),
    (re.compile(r"\b(AND|OR|NOT|IN|IS|NULL|LIKE|BETWEEN)\b"), "write and, or, not, in, is None in small letters"),
    (re.compile(r"&&|\|\|"), "write and, or"),
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter of rows that reads ``columns``. ``steps`` has its operations by place in ``text``, inner first."""

    text: str
    expression: pc.Expression
    columns: tuple[str, ...]
    steps: tuple[tuple[int, pc.Expression], ...]

    def check(self, schema: pa.Schema) -> None:
        """Raise `UsageError`, with the place in the text, if rows of ``schema`` cannot be filtered."""
        for name in self.columns:
            check_known("--where", name, schema.names)
        empty = schema.empty_table().select(self.columns)
        for place, step in self.steps:
            try:
                _evaluated(step, empty)
            except pa.ArrowException as error:
                raise _error(self.text, place, _kernel_text(error)) from None
        kind = _evaluated(self.expression, empty).type
        if kind != pa.bool_():
            raise _error(self.text, 0, f"expected something that is true or false, got a value of type {kind}")

    def matches(self, table: pa.RecordBatch) -> tuple[NDArray[np.bool_], dict[int, str]]:
        """Return the mask of rows that pass, and the reason for each row where the filter cannot be computed."""
        return _matches(self.expression, pa.Table.from_batches([table]).select(self.columns))


def parse(text: str) -> Condition:
    """Parse the filter ``text``. Raises `UsageError` with the place of the problem.

    Operands are columns (by name, in backquotes, or as ``col("…")``), numbers, texts, True, False,
    ``date("2026-01-31")`` and ``timestamp("2026-01-31T12:00:00")``. Operators are ``== != < <= > >=``, also chained,
    ``in`` a list of literals, ``is None``, ``and or not`` or ``& | ~``, and ``+ - * /``.
    """
    plain, names = _without_backquotes(text)
    lead = len(plain) - len(plain.lstrip())
    try:
        tree = ast.parse(plain[lead:].rstrip(), mode="eval")
    except SyntaxError as error:
        hint = next((f"; {hint}" for pattern, hint in _HINTS if pattern.search(plain)), "")
        # Python gives no place for an unexpected end.
        place = lead + error.offset - 1 if error.offset else len(text)
        raise _error(text, place, f"{error.msg}{hint}") from None
    except (ValueError, RecursionError, MemoryError):
        raise UsageError("--where: the expression cannot be parsed; it may be nested too deeply") from None
    builder = _Builder(text, plain[lead:], lead, names)
    try:
        expression = builder.value(tree.body)
    except RecursionError:
        raise UsageError("--where: the expression is nested too deeply") from None
    if not builder.columns:
        raise _error(text, lead, "expected a condition on at least one column")
    return Condition(text, expression, tuple(builder.columns), tuple(builder.steps))


class _Builder:
    """Builds expressions from Python's syntax tree; collects their columns and operations."""

    def __init__(self, text: str, source: str, lead: int, names: dict[int, str]) -> None:
        self._text = text
        self._encoded = source.encode()
        self._lead = lead
        self._names = names
        self.columns: dict[str, None] = {}
        self.steps: list[tuple[int, Expression]] = []

    def value(self, node: ast.expr) -> Expression:
        """Return the expression of any node."""
        match node:
            case ast.BoolOp(op=op, values=values):
                return self._joined(node, _BINARY[type(op)], values)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
                return self._step(node, _BINARY[type(op)](self.value(left), self.value(right)))
            case ast.UnaryOp(op=op, operand=operand) if not isinstance(operand, ast.Constant):
                return self._step(node, _UNARY[type(op)](self.value(operand)))
            case ast.Compare():
                return self._compared(node)
        return self._operand(node)

    def _error(self, node: ast.expr, expected: str) -> UsageError:
        return _error(self._text, self._place(node), expected)

    def _place(self, node: ast.expr) -> int:
        """Return the index of the first character of ``node`` in the text; Python counts bytes."""
        return self._lead + len(self._encoded[: node.col_offset].decode())

    def _step(self, node: ast.expr, expression: Expression) -> Expression:
        self.steps.append((self._place(node), expression))
        return expression

    def _column(self, name: str) -> Expression:
        self.columns[name] = None
        # As a tuple: dots in a text would select fields of structs.
        return pc.field((name,))

    def _joined(self, node: ast.expr, operator: Callable[..., Expression], values: list[ast.expr]) -> Expression:
        joined = self.value(values[0])
        for each in values[1:]:
            joined = self._step(node, operator(joined, self.value(each)))
        return joined

    def _compared(self, node: ast.Compare) -> Expression:
        operands = [node.left, *node.comparators]
        links = [
            self._step(left, self._link(left, op, right))
            for left, op, right in zip(operands, node.ops, operands[1:], strict=False)
        ]
        joined = links[0]
        for each in links[1:]:
            joined = joined & each
        return joined

    def _link(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Expression:
        if isinstance(op, ast.In | ast.NotIn):
            found = self.value(left).isin(self._list(right))
            return found if isinstance(op, ast.In) else ~found
        if isinstance(op, ast.Is | ast.IsNot):
            if not _is_none(right):
                raise self._error(right, "expected None after is; compare values with ==")
            missing = self.value(left).is_null()
            return missing if isinstance(op, ast.Is) else ~missing
        for operand in (left, right):
            if _is_none(operand):
                raise self._error(operand, "nothing equals None; write is None, or is not None")
        return _COMPARISONS[type(op)](self.value(left), self.value(right))

    def _operand(self, node: ast.expr) -> Expression:
        match node:
            case ast.Name(id=name):
                return self._column(self._names.get(self._place(node), name))
            case ast.Call(func=ast.Name(id="col"), args=[ast.Constant(value=str(name))], keywords=[]):
                return self._column(name)
        value = self._literal(node)
        try:
            return _scalar(value)
        except (pa.ArrowException, OverflowError):
            raise self._error(node, "expected a number that fits 64 bits") from None

    def _list(self, node: ast.expr) -> pa.Array:
        if not isinstance(node, ast.List | ast.Tuple | ast.Set):
            raise self._error(node, "expected a list of literals after in, such as [1, 2]")
        values = [self._literal(each) for each in node.elts]
        try:
            return pa.array(values)
        except (pa.ArrowException, OverflowError):
            raise self._error(node, "expected values of one type in the list") from None

    def _literal(self, node: ast.expr) -> object:
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return value
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=ast.Constant(value=int() | float() as number)):
                return -number if isinstance(op, ast.USub) else number
            case ast.Call(func=ast.Name(id=("date" | "timestamp") as name), args=[ast.Constant(value=str(text))]):
                try:
                    return _MOMENTS[name](text)
                except ValueError:
                    raise self._error(node, f"expected a {name} such as 2026-01-31") from None
            case ast.Call():
                raise self._error(node, 'there are no functions but col("…"), date("…") and timestamp("…")')
        raise self._error(node, "expected a column, a literal, a comparison, one of + - * /, or and, or, not")


def _scalar(value: object) -> Expression:
    scalar = pc.scalar(pa.scalar(value))
    # Arrow types a float literal as narrow as it can, and larger integers of a column would not fit that type.
    return scalar.cast(pa.float64()) if isinstance(value, float) else scalar


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _without_backquotes(text: str) -> tuple[str, dict[int, str]]:
    """Replace names in backquotes by Python names of the same length; return the names by their places."""
    names: dict[int, str] = {}

    def replacement(found: re.Match[str]) -> str:
        if found["open"]:
            raise _error(text, found.start(), "expected a second backquote after the name of the column")
        if not found["name"]:
            return found[0]
        names[found.start()] = found["name"][1:-1]
        return "_" * len(found["name"])

    return _LINE_BREAKS.sub(" ", _QUOTED.sub(replacement, text)), names


def _error(text: str, place: int, expected: str) -> UsageError:
    shown = _LINE_BREAKS.sub(" ", text)
    return UsageError(f"--where, character {place + 1}: {expected}\n    {escaped(shown)}\n    {' ' * place}^")


def _kernel_text(error: pa.ArrowException) -> str:
    """Return the text of an error of Arrow, in short for types that an operation does not combine."""
    found = re.search(r"input types \((.*)\)", str(error))
    if found:
        return f"there is no such operation for {found[1].replace(', ', ' and ')}"
    return clipped(escaped(str(error)))


def _evaluated(expression: pc.Expression, table: pa.Table) -> pa.ChunkedArray:
    steps = [
        acero.Declaration("table_source", acero.TableSourceNodeOptions(table)),
        acero.Declaration("project", acero.ProjectNodeOptions([expression], ["value"])),
    ]
    # One thread keeps the order of rows.
    return acero.Declaration.from_sequence(steps).to_table(use_threads=False)["value"]


def _matches(expression: pc.Expression, table: pa.Table) -> tuple[NDArray[np.bool_], dict[int, str]]:
    try:
        found = _evaluated(expression, table)
    except pa.ArrowException as error:
        rows = table.num_rows
        if rows == 1:
            return np.zeros(1, np.bool_), {0: f"--where: {clipped(escaped(str(error)))}"}
        # Some rows divide by zero or overflow: halve the table until they are alone.
        half = rows // 2
        first, first_bad = _matches(expression, table.slice(0, half))
        second, second_bad = _matches(expression, table.slice(half))
        later = {half + row: text for row, text in second_bad.items()}
        return np.concatenate([first, second]), first_bad | later
    return pc.fill_null(found, fill_value=False).to_numpy(zero_copy_only=False), {}
