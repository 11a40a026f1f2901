"""``inferd config``."""

from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.failures import CommandError, ExitCode
from inferd.cli.output import print_json
from inferd.config import SettingsError, effective_yaml, json_schema, load_settings

EXAMPLES = ("inferd config --config inferd.yaml", "INFERD_QUEUE__MAX_ROWS=64 inferd config", "inferd config --schema")


def config(
    *,
    config_file: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Settings file; default: the one INFERD_CONFIG names."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the settings file instead.")
    ] = False,
) -> None:
    """Print the settings in force, from the environment, the settings file and the defaults, as YAML."""
    if schema:
        print_json(json_schema())
        return
    try:
        settings = load_settings(config_file=config_file, flags={})
    except SettingsError as error:
        raise CommandError(str(error), ExitCode.USAGE) from None
    print(effective_yaml(settings), end="")
