"""Validate a tree of plain values against a model, with errors that an operator can act on."""

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

_MAX_VALUE_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One invalid value: its dotted ``name``, what was expected, and its origin."""

    name: str
    text: str
    origin: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text} ({self.origin})" if self.name else f"{self.origin}: {self.text}"


class SettingsError(ValueError):
    """Invalid settings. The text is for the operator, with a line for each problem."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems]
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} settings are invalid:", *lines]))


def validate(
    model: type[M],
    values: Mapping[str, Any],
    *,
    origin_of: Callable[[SettingPath], str],
    spell: Callable[[str, SettingPath], str] = lambda name, _: name,
) -> M:
    """Validate ``values``, or raise `SettingsError` with all problems.

    ``origin_of`` returns the origin of the value at a path. ``spell`` writes a suggested dotted name in the notation
    of the origin of the unknown name at that path, for example as an environment variable.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = _problems(error.errors(include_url=False), values, origin_of, _Names(model, spell))
    raise SettingsError(problems)


@dataclass(frozen=True, slots=True)
class _Names:
    """The known names of settings, for suggestions."""

    model: type[BaseModel]
    spell: Callable[[str, SettingPath], str]

    def closest_to(self, path: SettingPath) -> str | None:
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
        if error["type"] not in ("invalid", "extra_forbidden"):
            got[path] = error["input"]
    return [
        Problem(
            name=".".join(path),
            text=_alternatives(texts) + (f", got {_quoted(got[path])}" if path in got else ""),
            origin=origin_of(path),
        )
        for path, texts in texts_at.items()
    ]


def _path(error: ErrorDetails, values: Mapping[str, Any]) -> SettingPath:
    """Return the parts of the error's location that are in the values; the others name types that pydantic tried."""
    path: list[str] = []
    current: Any = values
    for key in error["loc"]:
        if _has(current, key):
            current = current[key]
            path.append(str(key))
    setting = str(error.get("ctx", {}).get("setting", ""))
    return (*path, *setting.split(".")) if setting else tuple(path)


def _has(values: object, key: str | int) -> bool:
    if isinstance(values, Mapping):
        return key in values
    return isinstance(values, list) and isinstance(key, int) and key < len(values)


#: Replace messages of pydantic that name Python types.
_MESSAGES = {"model_type": "expected a section with settings", "path_type": "expected a path"}


def _text(error: ErrorDetails, path: SettingPath, names: _Names) -> str:
    if error["type"] == "extra_forbidden":
        suggestion = names.closest_to(path)
        return f"no such setting, did you mean {suggestion}?" if suggestion else "no such setting"
    if error["type"] == "missing":
        return f"expected {error['loc'][-1]} in it"
    return _MESSAGES.get(error["type"]) or re.sub(r"^\w+ should (be|have) ", "expected ", error["msg"])


def _alternatives(texts: Sequence[str]) -> str:
    """Join the errors of one value, which has one for each type of a union."""
    first, *others = dict.fromkeys(texts)
    return " or ".join([first, *(other.removeprefix("expected ") for other in others)])


def _quoted(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # integers with thousands of digits
        return "a number with too many digits"
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[:_MAX_VALUE_CHARACTERS]}…"
