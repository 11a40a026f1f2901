"""Settings of one model version: its ``model.yaml`` over the server's settings, and limits for many versions."""

from collections.abc import Mapping
from pathlib import Path

from inferd.config.settings import ModelSettings, Settings
from inferd.config.yaml_text import YamlError, read_yaml
from inferd.runtime import providers
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.resources import threads_per_run
from inferd.small_files import read_text

#: Limit for the threads of ONNX Runtime in all sessions together, without the batch workers. Each session has its own
#: threads, which are idle unless that version runs.
_MAX_THREADS = 64
_MAX_THREADS_PER_CORE = 8


def read_model_settings(settings: Settings, config: Path | None) -> ModelSettings:
    """Return the server's settings with those of the file ``config``, if any, over them.

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
    default = threads_per_run(configured=0, on_accelerator=False, instances=settings.batching.instances, cores=cores)
    if runtime.intra_op_threads or default <= limit or _on_accelerator(settings, available):
        return settings
    return settings.model_copy(update={"runtime": runtime.model_copy(update={"intra_op_threads": limit})})


def _on_accelerator(settings: ModelSettings, available: list[str]) -> bool:
    try:
        (first, *_) = providers.attempts(settings.runtime, available)
    except ModelLoadError:  # raised again, and reported, when the model is opened
        return False
    return providers.on_accelerator([name for name, _ in first])
