"""Turns a tree of plain values into validated settings, or into an error that an operator can act on."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

#: The keys that lead to a value, for example ``("server", "grpc_port")``.
SettingPath = tuple[str, ...]

M = TypeVar("M", bound=BaseModel)

_LONGEST_VALUE = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One value that is refused: its dotted ``name``, what is wrong with it and where it came from."""

    name: str
    text: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text} ({self.origin})" if self.name else f"{self.origin}: {self.text}"


class SettingsError(ValueError):
    """Settings that are refused. The text has a line for each problem and is meant for the operator."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are refused:", *lines]))


def validate(
    model: type[M],
    values: Mapping[str, Any],
    *,
    origin_of: Callable[[SettingPath], str],
    spell: Callable[[str, SettingPath], str] = lambda name, _: name,
) -> M:
    """Validate ``values``, or raise `SettingsError` with every problem there is.

    ``origin_of`` tells where the value at a path came from. ``spell`` writes the dotted name that is suggested in
    place of an unknown one the way that the unknown one's origin writes names.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = _problems(error.errors(include_url=False), values, origin_of, _Names(model, spell))
    raise SettingsError(problems)


@dataclass(frozen=True, slots=True)
class _Names:
    """The settings that exist, for guessing which one was meant."""

    model: type[BaseModel]
    spell: Callable[[str, SettingPath], str]

    def meant_by(self, path: SettingPath) -> str | None:
        names = list(setting_names(self.model))
        elsewhere = [name for name in names if name.rpartition(".")[2] == path[-1]]
        close = elsewhere or get_close_matches(".".join(path), names, n=1, cutoff=0.75)
        return self.spell(close[0], path) if close else None


def setting_names(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted name of each section and setting of ``model``."""
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{inner}" for inner in setting_names(field.annotation))


def _problems(
    errors: Sequence[ErrorDetails], values: Mapping[str, Any], origin_of: Callable[[SettingPath], str], names: _Names
) -> list[Problem]:
    texts_at: dict[SettingPath, list[str]] = {}
    got: dict[SettingPath, object] = {}
    for error in errors:
        path = _path(error, values)
        texts_at.setdefault(path, []).append(_text(error, path, names))
        if error["type"] not in ("refused", "extra_forbidden"):
            got[path] = error["input"]
    return [
        Problem(
            name=".".join(path),
            text=_alternatives(texts) + (f", got {_shown(got[path])}" if path in got else ""),
            origin=origin_of(path),
        )
        for path, texts in texts_at.items()
    ]


def _path(error: ErrorDetails, values: Mapping[str, Any]) -> SettingPath:
    """The part of the error's location that is in the values; the rest names types that pydantic tried."""
    path: list[str] = []
    current: Any = values
    for key in error["loc"]:
        if not _has(current, key):
            break
        current = current[key]
        path.append(str(key))
    offender = str(error.get("ctx", {}).get("setting", ""))
    return (*path, *offender.split(".")) if offender else tuple(path)


def _has(values: object, key: str | int) -> bool:
    if isinstance(values, Mapping):
        return key in values
    return isinstance(values, list) and isinstance(key, int) and key < len(values)


#: Said in our own words where pydantic's speak of Python.
_PLAIN = {"model_type": "expected a section with settings", "path_type": "expected a path"}


def _text(error: ErrorDetails, path: SettingPath, names: _Names) -> str:
    if error["type"] == "extra_forbidden":
        meant = names.meant_by(path)
        return f"no such setting, did you mean {meant}?" if meant else "no such setting"
    if error["type"] == "missing":
        return f"expected {error['loc'][-1]} in it"
    return _PLAIN.get(error["type"]) or re.sub(r"^\w+ should (be|have) ", "expected ", error["msg"])


def _alternatives(texts: Sequence[str]) -> str:
    """One text of several: a value that may be of one of several types has an error for each of them."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(other.removeprefix("expected ") for other in others)])


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # of integers with thousands of digits
        return "a number with very many digits"
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
