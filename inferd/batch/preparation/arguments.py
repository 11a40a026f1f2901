"""Parse ``--tokenize`` and ``--image``: parts ``NAME=VALUE`` with commas between them."""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from inferd.batch.errors import UsageError, check_known
from inferd.batch.options import ImageOptions, TokenizeOptions
from inferd.plain_text import clipped, escaped

_SIZE = re.compile(r"(\d+)(?:x(\d+))?")

#: The most pixels in a row or column.
_MOST_SIZE = 16_384

#: Parses a value. Raises `ValueError` with the expected form.
_Parse = Callable[[str], Any]


def tokenize_options(text: str) -> TokenizeOptions:
    """Parse ``FILE[,max_length=N][,truncate=false][,pad_to=N][,column=NAME]…``.

    ``ids``, ``attention_mask`` and ``type_ids`` are names of inputs. Raises `UsageError`.
    """
    file, _, rest = text.partition(",")
    if not file or "=" in file:
        raise UsageError(f"--tokenize: expected the file of a tokenizer first, got {_shown(text)}")
    given = _parsed("--tokenize", rest, _TOKENIZE)
    fields = {name: given.pop(name) for name in _FIELDS if name in given}
    return TokenizeOptions(file=file, fields=fields, **given)


def image_options(text: str) -> ImageOptions:
    """Parse ``size=224|HxW,mean=a/b/c,std=a/b/c,scale=X,layout=…,crop=…,color=…,column=…,input=…``.

    All may be left out. Raises `UsageError`.
    """
    return ImageOptions(**_parsed("--image", text, _IMAGE))


def _parsed(option: str, text: str, parsers: Mapping[str, _Parse]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise UsageError(f"{option}: expected NAME=VALUE between commas, got {_shown(part)}")
        check_known(option, name, parsers, "part")
        if name in given:
            raise UsageError(f"{option} {name}: expected it once, got it twice")
        try:
            given[name] = parsers[name](value)
        except ValueError as error:
            raise UsageError(f"{option} {name}: expected {error}, got {_shown(value)}") from None
    return given


def _shown(text: str) -> str:
    return escaped(repr(clipped(text)))


def _name(text: str) -> str:
    if not text:
        raise ValueError("a name")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise ValueError("a whole number of at least 1")
    return int(text)


def _flag(text: str) -> bool:
    return _one_of(text, "true", "false") == "true"


def _one_of(text: str, *known: str) -> str:
    if text not in known:
        raise ValueError(" or ".join(known))
    return text


def _size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    sides = [int(side) for side in found.groups(found[1])] if found else []
    if not all(1 <= side <= _MOST_SIZE for side in sides) or not sides:
        raise ValueError(f"a number of pixels up to {_MOST_SIZE}, or HEIGHTxWIDTH")
    return sides[0], sides[1]


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, text.split("/")))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, 3} or not all(map(isfinite, numbers)):
        raise ValueError("a number, or three with / between them")
    return numbers


def _divisors(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0 in numbers:
        raise ValueError("numbers other than 0")
    return numbers


def _scale(text: str) -> float:
    """Parse a number, or a fraction such as 1/255."""
    above, _, below = text.partition("/")
    try:
        scale = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        scale = 0.0
    if not isfinite(scale) or not scale:
        raise ValueError("a number other than 0, or a fraction such as 1/255")
    return scale


_FIELDS: Mapping[str, _Parse] = {"ids": _name, "attention_mask": _name, "type_ids": _name}

_TOKENIZE: Mapping[str, _Parse] = {
    "max_length": _count,
    "truncate": _flag,
    "pad_to": _count,
    "column": _name,
    **_FIELDS,
}

_IMAGE: Mapping[str, _Parse] = {
    "size": _size,
    "mean": _numbers,
    "std": _divisors,
    "scale": _scale,
    "layout": lambda text: _one_of(text, "nchw", "nhwc"),
    "crop": lambda text: _one_of(text, "center", "none"),
    "color": lambda text: _one_of(text, "rgb", "bgr", "gray"),
    "column": _name,
    "input": _name,
}
