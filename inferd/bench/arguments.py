"""Parse the options of ``inferd bench``. All functions raise `ValueError` with the option and the expected form."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import pairwise
from math import isfinite
from typing import TypeVar

from inferd.bench.traffic import TrafficClass

_Number = TypeVar("_Number", int, float)

_MOST_LEVELS = 1000
#: More than any machine sends; the load generator itself would not come to an end.
_MOST_IN_FLIGHT = 100_000
_HIGHEST_RATE_PER_S = 1e6
_MIX = {"name": str, "model": str, "version": str, "weight": float, "rows": int, "priority": int, "principal": str,
        "timeout": float}  # fmt: skip
_FIELDS = {each.name for each in fields(TrafficClass)}


def concurrencies(text: str) -> list[int]:
    """Parse the levels of ``--concurrency``."""
    return _bounded("--concurrency", _levels("--concurrency", text, _integer), _MOST_IN_FLIGHT)


def rates(text: str) -> list[float]:
    """Parse the levels of ``--rate``."""
    return _bounded("--rate", _levels("--rate", text, _positive), _HIGHEST_RATE_PER_S)


def shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Parse each ``NAME:SIZE,SIZE``; the name may have colons."""
    found = {}
    for text in texts:
        name, colon, sizes = text.rpartition(":")
        parts = sizes.split(",") if sizes else []
        if not (name and colon) or not all(part.strip().isdecimal() for part in parts):
            raise ValueError(f'--shape: expected NAME:SIZE,SIZE,…, got "{text}"')
        if name in found:
            raise ValueError(f'--shape: expected each name once, got "{name}" again')
        found[name] = tuple(map(int, parts))
    return found


def principals(texts: Sequence[str]) -> dict[str, str]:
    """Parse each ``NAME=FILE``."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise ValueError(f'--principal: expected NAME=FILE, got "{text}"')
        if name in found:
            raise ValueError(f'--principal: expected each name once, got "{name}" again')
        found[name] = file
    return found


def mix(texts: Sequence[str], default: TrafficClass) -> tuple[TrafficClass, ...]:
    """Parse each ``KEY=VALUE,…`` into a traffic class; other keys are those of ``default``."""
    if not texts:
        return (default,)
    classes = tuple(_traffic_class(text, default) for text in texts)
    names = [each.name for each in classes]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'--mix: expected different names, got "{name}" twice; name=NAME sets one')
    return classes


def _traffic_class(text: str, default: TrafficClass) -> TrafficClass:
    given: dict[str, str | float] = {}
    for part in text.split(","):
        key, equals, value = part.strip().partition("=")
        if key not in _MIX or not equals:
            raise ValueError(f'--mix: expected KEY=VALUE with a key of {", ".join(_MIX)}, got "{part.strip()}"')
        if key in given:
            raise ValueError(f'--mix: expected each key once, got "{key}" again in "{text}"')
        given[key] = _mix_value(key, value)
    name = str(given.pop("name", "")) or text
    values = {"timeout_s" if key == "timeout" else key: value for key, value in given.items()}
    kept = {key: getattr(default, key) for key in _FIELDS - values.keys() - {"name"}}
    return TrafficClass(name=name, **(kept | values))


def _mix_value(key: str, value: str) -> str | float:
    option = f"--mix {key}"
    if _MIX[key] is str:
        return value
    if _MIX[key] is float:
        return _positive(option, value)
    return _integer(option, value, least=0 if key == "priority" else 1)


def _bounded(option: str, levels: list[_Number], most: float) -> list[_Number]:
    if levels[-1] > most:
        raise ValueError(f"{option}: expected at most {most:g}, got {levels[-1]:g}")
    return levels


def _levels(option: str, text: str, parse: Callable[[str, str], _Number]) -> list[_Number]:
    """Parse ``A``, ``A,B,C``, ``FIRST:LAST:STEP`` or ``FIRST:LAST:xFACTOR``."""
    levels = list(_range(option, text, parse) if ":" in text else (parse(option, part) for part in text.split(",")))
    if any(after <= before for before, after in pairwise(levels)):
        raise ValueError(f'{option}: expected ascending levels, got "{text}"')
    return levels


def _range(option: str, text: str, parse: Callable[[str, str], _Number]) -> Iterator[_Number]:
    parts = text.split(":")
    if len(parts) != 3:
        raise ValueError(f'{option}: expected FIRST:LAST:STEP or FIRST:LAST:xFACTOR, got "{text}"')
    first, last = parse(option, parts[0]), parse(option, parts[1])
    multiplies = parts[2].startswith("x")
    step = parse(option, parts[2].removeprefix("x"))
    if last < first or (multiplies and step <= 1):
        raise ValueError(f'{option}: expected FIRST up to LAST, and a factor above 1, got "{text}"')
    level, count = first, 0
    while level <= last:
        if count == _MOST_LEVELS:
            raise ValueError(f'{option}: expected at most {_MOST_LEVELS} levels, got "{text}"')
        yield level
        level = level * step if multiplies else level + step
        count += 1


def _integer(option: str, text: str, least: int = 1) -> int:
    if not text.strip().isdecimal() or int(text) < least:
        raise ValueError(f'{option}: expected an integer of at least {least}, got "{text}"')
    return int(text)


def _positive(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise ValueError(f'{option}: expected a number above 0, got "{text}"')
    return value
