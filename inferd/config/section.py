"""What all sections of the settings share: the base class, its errors, and merging of plain values."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError


def validation_error(text: str, *, setting: str = "") -> PydanticCustomError:
    """Return the error that a validator raises; ``setting`` is the invalid name, relative to the validated section."""
    return PydanticCustomError("invalid", "{text}", {"text": text, "setting": setting})


class Section(BaseModel):
    """A group of settings. Unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _default_empty_section(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("*", mode="before")
    @classmethod
    def _reject_bool(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads "on" and "yes" as true, which pydantic would convert to 1.
        if isinstance(value, bool) and _takes_number(cls.model_fields[str(info.field_name)].annotation):
            text = f"expected a number, got {value}"
            raise validation_error(text)
        return value


def _takes_number(annotation: object) -> bool:
    """Whether a type expression, or one of its alternatives, is a number."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation in (int, float) or (
        get_origin(annotation) in (Union, UnionType) and any(map(_takes_number, get_args(annotation)))
    )


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overrides`` applied.

    Mappings are merged key by key; other values, lists included, are replaced. A null override of a mapping is a
    section whose lines are all commented out, and changes nothing.
    """
    merged = dict(base)
    for key, value in overrides.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and value is None:
            continue
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
