"""`--where`: which rows it keeps, and where it says that a text is wrong."""

from datetime import date, datetime

import pyarrow as pa
import pytest

from inferd.batch.errors import UsageError
from inferd.batch.expressions import parse

ROWS = pa.record_batch(
    {
        "a": [1, 2, None, 4],
        "s": ["x", "y", "z", None],
        "b": [True, False, None, True],
        "at": [datetime(2026, 1, day) for day in (1, 2, 3, 4)],
        "day": [date(2026, 1, day) for day in (1, 2, 3, 4)],
        "ü b": [1, 2, 3, 4],
        "large": [1, 2**24 + 1, 2**40, 2**53],
        "p.q": [0, 1, 2, 3],
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a > 1", [1, 3]),
        ("1 < a <= 4", [1, 3]),
        ("1 < a < 4", [1]),
        ("a != 2", [0, 3]),
        ("-a <= -2", [1, 3]),
        ("a == -1 + 2", [0]),
        ("a * 2 - 1 == 3", [1]),
        ("a / 4 == 0.5", [1]),
        ("large > 1.5", [1, 2, 3]),
        ("b", [0, 3]),
        ("not b", [1]),
        ("~b & (a > 0)", [1]),
        ("a == 1 or s == 'y' and not a == 1", [0, 1]),
        ("(a == 1) | (s == 'z')", [0, 2]),
        ("a is None", [2]),
        ("a is not None and s is None", [3]),
        ("s in ['x', 'z']", [0, 2]),
        ("a not in (1, 2)", [2, 3]),
        ("a in [1, None]", [0, 2]),
        ("at >= timestamp('2026-01-03T00:00:00')", [2, 3]),
        ("day in [date('2026-01-02')]", [1]),
        ("`ü b` > 3 or a == 1", [0, 3]),
        ("col('p.q') == 2", [2]),
        ("'`' == s or a == 1", [0]),
        ("  a >\n 1", [1, 3]),
    ],
)
def test_keeps_rows_for_which_condition_is_true(text: str, rows: list[int]) -> None:
    """Rows are kept as Python would decide, and those where a null is compared are not."""
    condition = parse(text)
    condition.check(ROWS.schema)
    matching, bad = condition.matches(ROWS)
    assert matching.nonzero()[0].tolist() == rows
    assert not bad


def test_columns_are_those_in_text() -> None:
    """The columns of a condition are known before anything is read, each once."""
    assert parse("a > 1 and `ü b` < a and col('p.q') is None").columns == ("a", "ü b", "p.q")


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("a = 1", 3, "=="),
        ("a == 1 AND b", 8, "small letters"),
        ("a == 1 && b", 9, "write and, or"),
        ("a >", 4, "invalid syntax"),
        ("", 1, "invalid syntax"),
        ("'ü' == s and f(1)", 14, "there are no functions"),
        ("a == None", 6, "is None"),
        ("a is 1", 6, "expected None"),
        ("a in s", 6, "expected a list"),
        ("a in [1, 'x']", 6, "values of one type"),
        ("a.b == 1", 1, "expected a column"),
        ("a ** 2 == 1", 1, "one of + - * /"),
        ("`a", 1, "second backquote"),
        ("a == 99999999999999999999", 6, "64 bits"),
        ("at > date('January')", 6, "2026-01-31"),
        ("s == b'x'", 6, "expected a column, a literal"),
        ("1 < 2", 1, "at least one column"),
        ("b and a > 's'", 7, "no such operation for int64 and string"),
        ("b and\n s + 1 == 's'", 8, "no such operation"),
        ("a + 1", 1, "true or false, got a value of type int64"),
        ("b or a in ['x']", 6, "string"),
        ("s / 2 > 1", 1, "no such operation"),
    ],
)
def test_error_points_at_place(text: str, character: int, message: str) -> None:
    """What is not understood, or does not fit the columns, is refused with its place, also under the text."""
    with pytest.raises(UsageError, match="--where") as caught:
        parse(text).check(ROWS.schema)
    first, shown, caret = str(caught.value).splitlines()
    assert first.startswith(f"--where, character {character}: ")
    assert message in first
    assert len(shown) - 4 == len(text)
    assert caret.index("^") - 4 == character - 1


@pytest.mark.parametrize("text", ["(" * 300 + "a" + ")" * 300, "-" * 3000 + "a > 1", "not " * 5000 + "b"])
def test_refuses_deep_nesting(text: str) -> None:
    """Text that is nested too deeply for the parser is an error of usage."""
    with pytest.raises(UsageError, match="--where"):
        parse(text).check(ROWS.schema)


def test_unknown_column_has_hint() -> None:
    """A column that is not there is named, with the one that may be meant."""
    with pytest.raises(UsageError, match=r'no column "ab".*did you mean a\?'):
        parse("ab > 1").check(pa.schema([("a", pa.int64()), ("c", pa.int64())]))


def test_failed_computation_costs_its_row_only() -> None:
    """A division by zero, or an overflow, costs its row; the others are filtered."""
    rows = pa.record_batch({"a": [0, 1, 2, 0, 5, 2**62]})
    matching, bad = parse("a * 3 > 0 and 10 / a > 4").matches(rows)
    assert matching.tolist() == [False, True, True, False, False, False]
    assert sorted(bad) == [0, 3, 5]
    assert "divide by zero" in bad[0]
    assert "overflow" in bad[5]
