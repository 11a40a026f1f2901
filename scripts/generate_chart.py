"""Generate the chart's values.schema.json and README.md from values.yaml; ``--check`` only reports outdated files.

The comment above a value is its description, and a line ``@schema {…}`` in it adds to the type of the default. Values
below one with such a line are not described. The schema of ``config`` is the server's.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inferd.config.loading import json_schema

CHART = Path(__file__).parents[1] / "helm" / "inferd"

_ANNOTATION = "@schema "
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}

_TABLE = "| value | type | default | description |\n|---|---|---|---|\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One value of values.yaml, with those below it."""

    name: str
    default: object
    description: str
    annotation: dict[str, Any]
    below: "tuple[Value, ...]"

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema, as far as both releases of helm support it."""
        schema: dict[str, Any] = {"description": self.description}
        if self.below:
            return schema | _closed(self.below)
        if "$ref" in self.annotation:
            # Keywords beside a reference are ignored.
            return self.annotation
        if "enum" not in self.annotation:
            schema["type"] = _TYPES[type(self.default)]
        if schema.get("type") == "integer":
            schema["minimum"] = 0
        return schema | self.annotation

    @property
    def is_required(self) -> bool:
        """Whether null is refused; it removes objects with defaults, and is the same as an empty text."""
        if "null" in self.annotation.get("type", ()):
            return False
        is_object = isinstance(self.default, dict) and bool(self.default)
        return bool(self.below) or "$ref" in self.annotation or not (is_object or self.default == "")

    def rows(self, prefix: str = "") -> Iterator[str]:
        """Rows of the README's table."""
        name = prefix + self.name
        if self.below:
            yield f"| **`{name}`** | | | **{self.description}** |\n"
            for value in self.below:
                yield from value.rows(f"{name}.")
        else:
            default = json.dumps(self.default).replace("|", "\\|")
            yield f"| `{name}` | {self._type()} | `{default}` | {self.description} |\n"

    def _type(self) -> str:
        if "enum" in self.annotation:
            return ", ".join(f"`{choice}`" if choice else "empty" for choice in self.annotation["enum"])
        if "$ref" in self.annotation:
            return "object"
        kind = self.schema["type"]
        return " or ".join(kind) if isinstance(kind, list) else str(kind)


def values(text: str) -> tuple[Value, ...]:
    """Read values.yaml. Raises `ValueError` for a value without a description."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        msg = "values.yaml holds no mapping"
        raise TypeError(msg)
    return _read(root, yaml.safe_load(text), text.splitlines())


def schema(text: str) -> str:
    """Return values.schema.json."""
    definitions, settings = _server_settings()
    whole = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart inferd",
        **_closed(values(text)),
        "definitions": definitions | {"Settings": settings},
    }
    # Helm passes it to subcharts.
    whole["properties"]["global"] = {"type": "object"}
    return json.dumps(whole, indent=2) + "\n"


def readme(text: str) -> str:
    """Return README.md: the page in README.md.in, followed by the table."""
    rows = "".join(row for value in values(text) for row in value.rows())
    return (CHART / "README.md.in").read_text() + "\n" + _TABLE + rows


def _read(node: yaml.MappingNode, defaults: dict[str, Any], lines: list[str]) -> tuple[Value, ...]:
    found = []
    for key, below in node.value:
        description, annotation = _comment(lines, key.start_mark.line)
        if not description:
            msg = f"values.yaml line {key.start_mark.line + 1}: expected a comment above {key.value}"
            raise ValueError(msg)
        described = isinstance(below, yaml.MappingNode) and annotation is None and bool(below.value)
        found.append(
            Value(
                name=key.value,
                default=defaults[key.value],
                description=description,
                annotation=annotation or {},
                below=_read(below, defaults[key.value], lines) if described else (),
            )
        )
    return tuple(found)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any] | None]:
    """Return the text directly above ``line``, and its ``@schema``."""
    text: list[str] = []
    annotation = None
    while line > 0 and (match := re.match(r"\s*# (.*)", lines[line - 1])):
        line -= 1
        if match[1].startswith(_ANNOTATION):
            annotation = json.loads(match[1].removeprefix(_ANNOTATION))
        else:
            text.insert(0, match[1])
    return " ".join(text), annotation


def _closed(properties: tuple[Value, ...]) -> dict[str, Any]:
    """Return the schema of a section; helm drops what is null in the values, defaults included."""
    required = [value.name for value in properties if value.is_required]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: value.schema for value in properties},
        **({"required": required} if required else {}),
    }


def _server_settings() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the definitions of the server's schema, and the schema itself."""
    text = json.dumps(json_schema()).replace("#/$defs/", "#/definitions/")
    settings = json.loads(text)
    definitions = settings.pop("$defs")
    return definitions, {key: value for key, value in settings.items() if not key.startswith("$")}


def main() -> int:
    """Write the files, or report which are outdated."""
    text = (CHART / "values.yaml").read_text()
    outdated = 0
    for name, content in (("values.schema.json", schema(text)), ("README.md", readme(text))):
        file = CHART / name
        if file.exists() and file.read_text() == content:
            continue
        if "--check" in sys.argv[1:]:
            print(f"{file} is not current: run make docs", file=sys.stderr)
            outdated = 1
        else:
            file.write_text(content)
    return outdated


if __name__ == "__main__":
    sys.exit(main())
