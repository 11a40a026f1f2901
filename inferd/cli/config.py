"""``inferd config``, and the options for settings that other commands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.failures import UsageError
from inferd.cli.output import print_json
from inferd.config.loading import effective_yaml, json_schema, load_settings
from inferd.config.settings import Settings
from inferd.config.validation import SettingsError
from inferd.config.yaml_text import YamlError, read_yaml

EXAMPLES = ("inferd config --config inferd.yaml", "INFERD_QUEUE__MAX_ROWS=64 inferd config", "inferd config --schema")


def config(
    *,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Settings file. Defaults to the one in INFERD_CONFIG."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the settings file instead.")
    ] = False,
) -> None:
    """Print the effective settings, from environment, settings file and defaults, as YAML."""
    if schema:
        print_json(json_schema())
    else:
        print(effective_yaml(server_settings(config_file)), end="")


def server_settings(config_file: Path | None, assignments: Sequence[str] = ()) -> Settings:
    """Return the settings of a server with these ``--config`` and ``--set`` options. Raises `CommandError`."""
    try:
        return load_settings(config_file=config_file, flags=parse_assignments(assignments))
    except SettingsError as error:
        raise UsageError(str(error)) from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, object]:
    """Return the values of ``--set NAME=VALUE`` by dotted name. Values are YAML. Raises `CommandError`."""
    flags: dict[str, object] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise UsageError(f"--set: expected NAME=VALUE, got {assignment!r}")
        try:
            _, flags[name] = read_yaml(value)
        except YamlError as error:
            raise UsageError(f"--set {name}: {value!r} {error}") from error
    return flags
