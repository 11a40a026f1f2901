"""The files of a model beside its ``.onnx`` files."""

import os
from collections.abc import Mapping
from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.small_files import MAX_BYTES, read_text, why_unreadable

#: Says what a language model needs to know of itself, in the form of onnxruntime-genai.
GENAI_CONFIG = "genai_config.json"


def model_folder(path: Path) -> Path:
    """Return the directory of the model of which ``path`` is a file, which may be in a version directory."""
    return path.parent.parent if path.parent.name.isdecimal() else path.parent


def has_genai_config(folder: Path) -> bool:
    """Whether ``folder`` is one of a language model, as the builder of onnxruntime-genai writes it."""
    return os.path.lexists(folder / GENAI_CONFIG)


def settings_files(path: Path) -> str:
    """Return the names of the files that may hold settings of the model of which ``path`` is a file; may be empty."""
    folder = model_folder(path)
    return " or ".join(name for name in ("model.yaml", "config.pbtxt") if (folder / name).exists())


def read_labels(path: Path, settings: ModelSettings) -> Mapping[str, tuple[str, ...]]:
    """Return the names of classes of each output that has them, by output. Raises `ModelLoadError`."""
    labels: dict[str, tuple[str, ...]] = {}
    for output, override in settings.outputs.items():
        if override.labels:
            file = model_folder(path) / override.labels
            text = read_model_text(file, shown_as=f"outputs.{output}.labels: {override.labels}")
            labels[output] = tuple(line.strip() for line in text.splitlines())
    return labels


def read_model_text(file: Path, *, shown_as: str = "", max_bytes: int = MAX_BYTES) -> str:
    """Return the text of a UTF-8 file; errors begin with ``shown_as``, or its name. Raises `ModelLoadError`."""
    shown_as = shown_as or file.name
    try:
        return read_text(file, max_bytes)
    except OSError as error:
        msg = f"{shown_as}: {why_unreadable(file, error)}"
        raise ModelLoadError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{shown_as}: expected UTF-8 text"
        raise ModelLoadError(msg) from error
