"""The settings for people and for editors: what is in force, and what there is."""

from typing import Any

import yaml

from inferd.config.settings import Settings
from inferd.plain_text import escaped


def effective_yaml(settings: Settings) -> str:
    """Return all settings as a configuration file that would give the same ones."""
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
        **Settings.model_json_schema(),
        "title": "inferd settings",
    }
