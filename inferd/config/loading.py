"""Load the settings from all sources, and write them as YAML and as a JSON Schema."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from inferd.config.descriptions import DescribedSchema
from inferd.config.section import merge
from inferd.config.settings import Settings
from inferd.config.sources import EnvironmentSource, FileSource, FlagSource, Source
from inferd.config.validation import SettingPath, validate
from inferd.plain_text import escaped

#: Names the configuration file where no flag does.
CONFIG_VARIABLE = "INFERD_CONFIG"


def load_settings(*, config_file: Path | None, flags: Mapping[str, object]) -> Settings:
    """Merge flags over environment over file over defaults, and validate the result.

    ``flags`` are by dotted name, for example ``{"server.grpc_port": 8001}``; None means not given. Raises
    `SettingsError`, which lists every problem with the value and its origin.
    """
    path = config_file or _config_file_of_environment()
    sources: list[Source] = [FlagSource(flags), EnvironmentSource()]
    if path is not None:
        sources.append(FileSource(path))
    values: dict[str, Any] = {}
    for source in reversed(sources):
        values = merge(values, source.values)

    def origin_of(setting: SettingPath) -> str:
        source = _source_of(setting, sources)
        return source.where(setting) if source else "default"

    def spell(name: str, setting: SettingPath) -> str:
        source = _source_of(setting, sources)
        return source.spell(name) if source else name

    return validate(Settings, values, origin_of=origin_of, spell=spell)


def has_config_file(config_file: Path | None) -> bool:
    """Whether a flag or the environment names a configuration file."""
    return (config_file or _config_file_of_environment()) is not None


def effective_yaml(settings: Settings) -> str:
    """Return all settings as a configuration file that reproduces them."""
    values = settings.model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if escaped(text, keep="\n") == text:
        return text
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=False)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:inferd:settings",
        **Settings.model_json_schema(schema_generator=DescribedSchema),
        "title": "inferd settings",
    }


def _config_file_of_environment() -> Path | None:
    name = os.environ.get(CONFIG_VARIABLE)
    return Path(name) if name else None


def _source_of(setting: SettingPath, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if _holds(source.values, setting)), None)


def _holds(values: object, path: SettingPath) -> bool:
    if not path:
        return True
    if isinstance(values, Mapping):
        return any(str(key) == path[0] and _holds(value, path[1:]) for key, value in values.items())
    return isinstance(values, list) and path[0].isdecimal() and int(path[0]) < len(values)
