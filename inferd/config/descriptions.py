"""What settings are for: the docstrings of their fields, as the JSON Schema and the docs show them.

They are read when they are shown. With `use_attribute_docstrings`, pydantic read them for each class, 45 ms of a start.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from inferd.config.section import Section


def descriptions(section: type[Section]) -> dict[str, str]:
    """Return the docstrings of the fields by name, those of base classes included."""
    found: dict[str, str] = {}
    for each in reversed(section.__mro__):
        if issubclass(each, Section):
            found |= _docstrings(each)
    return found


def _docstrings(section: type[Section]) -> dict[str, str]:
    definition = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in pairwise(definition.body):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                found[name] = inspect.cleandoc(docstring)
    return found


class DescribedSchema(GenerateJsonSchema):
    """Writes the JSON Schema of settings with their descriptions."""

    def model_schema(self, schema: core_schema.ModelSchema) -> dict[str, Any]:
        """Add the descriptions to the properties of a section."""
        written = super().model_schema(schema)
        for name, text in descriptions(schema["cls"]).items():
            written["properties"][name]["description"] = text
        return written
