"""Read the settings of a model version: those of its files over the server's; limit threads for many versions."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from inferd.config.section import merge
from inferd.config.settings import ModelSettings, Settings
from inferd.config.validation import SettingPath
from inferd.config.yaml_text import YamlError, lines_of, longest_match, read_yaml
from inferd.models.model_source import ModelSource
from inferd.models.triton import FIELD_OF, Translation, translate_file
from inferd.runtime import providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.genai_config import is_described
from inferd.runtime.model_folder import model_folder
from inferd.runtime.resources import threads_per_run
from inferd.small_files import read_text

_log = logging.getLogger(__name__)

#: Limit for the threads of ONNX Runtime in all sessions together, without the batch workers. Each session has its own
#: threads, which are idle unless that version runs.
_MAX_THREADS = 64
_MAX_THREADS_PER_CORE = 8


def read_model_settings(settings: Settings, source: ModelSource, *, log: bool = True) -> ModelSettings:
    """Return the server's settings with those of the files of ``source`` over them, field by field.

    A config.pbtxt sent with the call that loads the model precedes its model.yaml, which precedes its config.pbtxt.
    Logs replaced settings and fields without a meaning here; ``log`` is false where the load itself reads them later.
    Raises `ModelLoadError` naming the file and the field.
    """
    triton = source.override or source.triton
    folder = model_folder(source.path)
    generates = is_described(source.path)
    translation = (
        Translation({}) if triton is None else translate_file(triton, folder, name=source.name, generates=generates)
    )
    if triton is not None and log:
        _log_translation(translation, triton, source)
    given = _Layer("model.yaml") if source.config is None else _read(source.config)
    layers = [_Layer("config.pbtxt", translation.settings, translation.places), given]
    if source.override is not None:
        fields = {setting: f"field {name}" for setting, name in FIELD_OF.items()}
        layers = [given, _Layer("the config of the load", translation.settings, fields)]
    overrides: Mapping[str, Any] = {}
    for layer in layers:
        replaced = list(_conflicts(overrides, layer.values))
        if replaced and log:
            _log.info("%s of model %s replaces %s", layer.origin, source.name, ", ".join(replaced))
        overrides = merge(overrides, layer.values)
    try:
        return settings.for_model(overrides, partial(_origin, layers))
    except ValueError as error:
        raise ModelLoadError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Layer:
    """Settings of one file, whose name is ``origin``, and the ``places`` in the file, if known."""

    origin: str
    values: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[SettingPath, str] = field(default_factory=dict)

    def where(self, path: SettingPath) -> str:
        place = longest_match(self.places, path)
        return f"{self.origin} {place}" if place else self.origin


def _origin(layers: Sequence[_Layer], path: SettingPath) -> str:
    """Return where the setting at ``path`` comes from, or the last file if it only contradicts the server's."""
    given = [layer for layer in layers if layer.values]
    having = [layer for layer in layers if _has(layer.values, path)]
    return [*given, *having][-1].where(path)


def _has(layer: Mapping[str, Any], path: SettingPath) -> bool:
    below: Any = layer
    for key in path:
        if not isinstance(below, Mapping):
            return True  # the rest of the path is in a list
        if key not in below:
            return False
        below = below[key]
    return True


def _log_translation(translation: Translation, config: Path, source: ModelSource) -> None:
    if translation.ignored:
        ignored = ", ".join(translation.ignored)
        _log.warning("model %s: fields of %s without a meaning here: %s", source.name, config.name, ignored)
    if translation.differences:
        _log.info("model %s: differences to Triton: %s", source.name, "; ".join(translation.differences))


def _conflicts(below: Mapping[str, Any], above: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the settings of ``below`` that ``above`` replaces by other values."""
    for name, value in above.items():
        if name not in below:
            continue
        if isinstance(value, Mapping) and isinstance(below[name], Mapping):
            yield from _conflicts(below[name], value, f"{path}{name}.")
        elif value is not None and value != below[name]:
            yield f"{path}{name} ({below[name]} by {value})"


def _read(config: Path) -> _Layer:
    try:
        node, content = read_yaml(read_text(config))
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
        return _Layer("model.yaml")
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        msg = f"{config.name}: expected settings by name, got {type(content).__name__}"
        raise ModelLoadError(msg)
    return _Layer("model.yaml", content, {path: f"line {line}" for path, line in lines_of(node).items()})


def max_threads_per_run(versions: int, cores: int) -> int:
    """Return the maximum number of threads per run, the batch worker included, for ``versions`` model versions."""
    return 1 + (_MAX_THREADS + _MAX_THREADS_PER_CORE * cores) // max(versions, 1)


def limit_threads(settings: ModelSettings, *, versions: int, cores: int, available: list[str]) -> ModelSettings:
    """Return ``settings`` with fewer threads per run if all ``versions`` together would have too many.

    Explicit numbers are kept. ``available`` are the providers of the installed ONNX Runtime: on an accelerator a run
    has one thread anyway.
    """
    runtime = settings.runtime
    limit = max_threads_per_run(versions, cores)
    default = threads_per_run(
        configured=0, on_accelerator=False, instances=settings.batching.min_instances, cores=cores
    )
    if runtime.intra_op_threads or default <= limit or _on_accelerator(settings, available):
        return settings
    return settings.model_copy(update={"runtime": runtime.model_copy(update={"intra_op_threads": limit})})


def _on_accelerator(settings: ModelSettings, available: list[str]) -> bool:
    try:
        (first, *_) = providers.attempts(settings.runtime, available)
    except ModelLoadError:  # raised again, and reported, when the model is opened
        return False
    return providers.on_accelerator([name for name, _ in first])
