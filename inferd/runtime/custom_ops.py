"""Libraries of custom operators, which run inside the server process."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from inferd.runtime.errors import ModelLoadError, runtime_message
from inferd.runtime.runners import OrtObject

#: Configuration entry for the library of the Python package of that name.
EXTENSIONS = "onnxruntime-extensions"

#: Set by that package on import, to a protobuf implementation that is many times slower.
_PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


def libraries(entries: Sequence[str]) -> list[Path]:
    """Return the absolute paths of the libraries in ``entries``, without duplicates; opens nothing.

    An entry is a path, which may be relative to the working directory, or ``onnxruntime-extensions``. Raises
    `ModelLoadError` if that package is not installed.
    """
    # Absolute, because the dynamic linker would search its own path for a bare name.
    paths = [_extensions() if entry == EXTENSIONS else Path(entry).absolute() for entry in entries]
    return list(dict.fromkeys(paths))


def register(custom_ops: Sequence[Path], options: OrtObject) -> None:
    """Register the libraries with the session ``options``. Raises `ModelLoadError`."""
    for library in custom_ops:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            msg = f"runtime.custom_ops: {library.name}: {runtime_message(error, library.parent)}"
            raise ModelLoadError(msg) from error


def _extensions() -> Path:
    chosen = os.environ.get(_PROTOBUF)
    try:
        package = importlib.import_module("onnxruntime_extensions")
    except ImportError as error:
        msg = f"runtime.custom_ops: the Python package {EXTENSIONS} is not installed beside inferd"
        raise ModelLoadError(msg) from error
    finally:
        _restore(_PROTOBUF, chosen)
    return Path(package.get_library_path())


def _restore(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value
