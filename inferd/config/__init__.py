"""The validated tree of settings, and the sources that its values come from."""

from inferd.config.loading import effective_yaml, json_schema, load_settings
from inferd.config.settings import ModelSettings, Settings
from inferd.config.validation import Problem, SettingsError

__all__ = ["ModelSettings", "Problem", "Settings", "SettingsError", "effective_yaml", "json_schema", "load_settings"]
