"""A model's own settings, from the ``model.yaml`` beside its versions."""

from collections.abc import Mapping
from pathlib import Path

from inferd.config.settings import ModelSettings, Settings
from inferd.config.yaml_text import YamlError, read_yaml
from inferd.runtime.errors import ModelLoadError
from inferd.small_files import read_text


def read_model_settings(settings: Settings, config: Path | None) -> ModelSettings:
    """Return the server's settings with those of ``config`` over them; None is a model without a file.

    Raises `ModelLoadError` naming the file and the field.
    """
    overrides = {} if config is None else _read(config)
    try:
        return settings.for_model(overrides)
    except ValueError as error:
        raise ModelLoadError(str(error)) from error


def _read(config: Path) -> Mapping[str, object]:
    try:
        _, content = read_yaml(read_text(config))
    except OSError as error:
        msg = f"{config.name} cannot be read: {error.strerror}"
        raise ModelLoadError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{config.name}: expected UTF-8 text"
        raise ModelLoadError(msg) from error
    except YamlError as error:
        msg = f"{config.name}{f' line {error.line}' if error.line else ''}: {' '.join(str(error).split())}"
        raise ModelLoadError(msg) from error
    if content is None:
        return {}
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        msg = f"{config.name}: expected settings by name, got {type(content).__name__}"
        raise ModelLoadError(msg)
    return content
