"""Puts the settings together: flags over environment over file over defaults."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inferd.config.merging import merge
from inferd.config.settings import Settings
from inferd.config.sources import EnvironmentSource, FileSource, FlagSource, Source
from inferd.config.validation import SettingPath, validate

#: Names the configuration file where no flag does.
CONFIG_VARIABLE = "INFERD_CONFIG"


def load_settings(*, config_file: Path | None, flags: Mapping[str, object]) -> Settings:
    """Read every source and validate what they come to.

    ``flags`` are by dotted name, for example ``{"server.grpc_port": 8001}``; those that are None were not given.
    Raises `SettingsError`, whose text names each problem, the value and where it came from.
    """
    path = config_file or _named_file()
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


def names_a_file(config_file: Path | None) -> bool:
    """Whether there is a configuration file, by flag or by environment."""
    return (config_file or _named_file()) is not None


def _named_file() -> Path | None:
    named = os.environ.get(CONFIG_VARIABLE)
    return Path(named) if named else None


def _source_of(setting: SettingPath, sources: Sequence[Source]) -> Source | None:
    return next((source for source in sources if _holds(source.values, setting)), None)


def _holds(values: object, path: SettingPath) -> bool:
    if not path:
        return True
    if isinstance(values, Mapping):
        return path[0] in values and _holds(values[path[0]], path[1:])
    return isinstance(values, list) and path[0].isdecimal() and int(path[0]) < len(values)
