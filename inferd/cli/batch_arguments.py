"""Parse the options of ``inferd batch``. All functions raise `ValueError` that names the option."""

import csv
from collections.abc import Sequence

from inferd.batch.options import OnError

#: The value of --join for all columns.
ALL = "all"


def pairs(option: str, texts: Sequence[str], form: str) -> dict[str, str]:
    """Parse a repeatable option NAME=VALUE into values by name. ``form`` is its metavar, for errors."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ValueError(f'{option}: expected {form}, got "{text}"')
        _add(option, found, name, value)
    return found


def outputs(texts: Sequence[str]) -> dict[str, str]:
    """Parse each ``--output NAME[=COLUMN]`` into columns by output; the column defaults to NAME."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not name or (equals and not column):
            raise ValueError(f'--output: expected NAME or NAME=COLUMN, got "{text}"')
        _add("--output", found, name, column or name)
    return found


def names(option: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Parse a repeatable option of names with commas between; a name with a comma is in double quotes."""
    found = [name.strip() for row in csv.reader(texts) for name in row]
    if "" in found:
        raise ValueError(f'{option}: expected names with commas between them, got "{",".join(texts)}"')
    return tuple(dict.fromkeys(found))


def join(texts: Sequence[str] | None) -> tuple[str, ...] | None:
    """Parse ``--join`` into columns: None for none, empty for all."""
    if texts is None:
        return None
    found = names("--join", texts)
    return () if found == (ALL,) else found


def on_error(text: str) -> OnError:
    """Parse ``--on-error``: skip, stop or a number of rows."""
    match text:
        case "skip" | "stop":
            return text
    if not text.isdecimal():
        raise ValueError(f'--on-error: expected skip, stop or a number of rows, got "{text}"')
    return int(text)


def delimiter(text: str | None) -> str | None:
    """Parse ``--delimiter``: one character, or tab. None is the default."""
    if text in {None, "tab", r"\t"}:
        return text and "\t"
    if len(text) != 1 or not text.isascii() or text in '"\r\n':
        raise ValueError(f'--delimiter: expected one character of ASCII, or tab, got "{text}"')
    return text


def _add(option: str, found: dict[str, str], name: str, value: str) -> None:
    if name in found:
        raise ValueError(f"{option} {name}: expected once, got {found[name]} and {value}")
    found[name] = value
