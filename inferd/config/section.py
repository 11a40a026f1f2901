"""What every section of the settings has in common."""

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError


def refusal(text: str, *, setting: str = "") -> PydanticCustomError:
    """What a check of ours raises; ``setting`` is the offender's name, relative to the section that is checked."""
    return PydanticCustomError("refused", "{text}", {"text": text, "setting": setting})


class Section(BaseModel):
    """Settings that belong together; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_section_is_all_defaults(cls, value: object) -> object:
        return {} if value is None else value

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads "on" and "yes" as true, which pydantic would take for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            text = f"expected a number, got {value}"
            raise refusal(text)
        return value
