"""Generate docs/configuration.md from the settings; ``--check`` only reports whether it is current."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from inferd.config.descriptions import descriptions
from inferd.config.routing import RoutingSettings, ShadowSettings
from inferd.config.section import Section
from inferd.config.settings import ModelSettings, Settings
from inferd.config.sources import variable_of
from inferd.config.tensors import InputOverride, OutputOverride, TensorOverride

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD = """\
# Configuration

<!-- Written by scripts/generate_configuration_doc.py from inferd/config/. Do not edit. -->

Settings come from these sources; the first one that has a setting wins:

1. flags of `inferd serve`,
2. environment variables,
3. the YAML file named by `--config`, else by `INFERD_CONFIG`,
4. the default.

Unknown names and invalid values are errors at start, with the line, variable or flag they come from. `inferd config`
prints the effective settings, and `inferd config --schema` the JSON Schema of the file.

In the file, sections and names are nested (`queue:` with `max_rows: 512` below it). In environment variables they are
separated by two underscores (`INFERD_QUEUE__MAX_ROWS=512`); lists are written as `one,two` or as JSON, mappings and
whole sections as JSON; empty variables count as not set.
"""

MODEL_HEAD = """\

## Settings of one model

A `model.yaml` next to a model's file or version directories overrides settings of `queue`, `batching`, `runtime` and
`generation` for that model (`runtime.custom_ops` only with libraries that the server's own settings list too), and adds
facts about its tensors that the model file does not declare:

```yaml
batching:
  max_batch_size: 16
inputs:
  input_ids:
    warmup_shape: [1, 128]
loose_dimensions: [sequence]
```

| setting | type | default | description |
|---|---|---|---|
{settings}
The names under `inputs` and `outputs` are those of the model's tensors. Each may have:
"""


_WORDS: dict[Any, str] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    list: "list",
    dict: "mapping",
    Any: "any value",
    Path: "path",
}


def main() -> int:
    """Write the page, or check it."""
    page = render()
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") == page:
            return 0
        print(f"{PAGE.name} is out of date: run {Path(__file__).name}", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        if section := _section_of(field):
            parts += _sections(name, section)
        else:
            parts.append(f"\n## `{name}`\n\n{descriptions(Settings)[name]}\n\n{_facts(name, field)}\n")
    described_elsewhere = {"queue", "batching", "runtime", "generation", "inputs", "outputs", "routing"}
    parts.append(
        MODEL_HEAD.format(settings=_rows(ModelSettings, ModelSettings.model_fields.keys() - described_elsewhere))
    )
    parts.append(_table(TensorOverride))
    for kind, override in (("inputs", InputOverride), ("outputs", OutputOverride)):
        own = override.model_fields.keys() - TensorOverride.model_fields.keys()
        parts += [f"\nOnly `{kind}`:\n", _table(override, own)]
    for name, section in (("routing", RoutingSettings), ("routing.shadow", ShadowSettings)):
        parts += [f"\n`{name}`: {section.__doc__}\n", _table(section)]
    return "".join(parts)


def _section_of(field: FieldInfo) -> type[Section] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _sections(name: str, section: type[Section]) -> list[str]:
    """Return the text of a section and of its nested sections."""
    inner = [(f"{name}.{key}", _section_of(field)) for key, field in section.model_fields.items()]
    below = [text for key, nested in inner if nested for text in _sections(key, nested)]
    return [_section(name, section), *below]


def _section(name: str, section: type[Section]) -> str:
    plain = {inner for inner, field in section.model_fields.items() if not _section_of(field)}
    prefix = variable_of(f"{name}.")
    return f"\n## `{name}`\n\n{section.__doc__} Environment variables begin with `{prefix}`.\n{_table(section, plain)}"


def _table(section: type[Section], names: set[str] | None = None) -> str:
    return f"\n| setting | type | default | description |\n|---|---|---|---|\n{_rows(section, names)}"


def _rows(section: type[Section], names: set[str] | None = None) -> str:
    """Return the rows of all fields, or of those with these names."""
    described = descriptions(section)
    return "".join(
        f"| `{name}` | {_type(field)} | {_default(field)} | {described[name]} |\n"
        for name, field in section.model_fields.items()
        if names is None or name in names
    )


def _facts(name: str, field: FieldInfo) -> str:
    return f"{_type(field)}, by default {_default(field)}; environment variable `{variable_of(name)}`."


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none, required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return "not set"
    if default in ([], {}, ""):
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _type(field: FieldInfo) -> str:
    first, *others = _type_names(field.annotation)
    return " or ".join([first + _bounds(field), *others])


def _type_names(annotation: Any) -> list[str]:  # noqa: ANN401 (any type expression)
    """Return plain names of the alternatives of a type."""
    origin = get_origin(annotation)
    if annotation is type(None):
        return ["null"]
    values = get_args(annotation) if origin is Literal else _values(annotation)
    if values:
        return [", ".join(f"`{value}`" for value in values)]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return ["mapping"]
    if origin in _WORDS or annotation in _WORDS:
        return [_WORDS.get(origin) or _WORDS[annotation]]
    if origin is Annotated:
        return _type_names(get_args(annotation)[0])
    return [name for alternative in get_args(annotation) for name in _type_names(alternative)]


def _values(annotation: Any) -> list[Any]:  # noqa: ANN401  (as above)
    """Return the members of an enumeration of texts."""
    is_enumeration = isinstance(annotation, type) and issubclass(annotation, StrEnum)
    return list(annotation) if is_enumeration else []


def _bounds(field: FieldInfo) -> str:
    low = next((fact.ge for fact in field.metadata if hasattr(fact, "ge")), None)
    high = next((fact.le for fact in field.metadata if hasattr(fact, "le")), None)
    if low is None:
        return ""
    return f" from {_number(low)}" + ("" if high is None else f" to {_number(high)}")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


if __name__ == "__main__":
    sys.exit(main())
