"""Execution providers, and libraries of custom operators, which run inside the server process."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from inferd.config.settings import RuntimeSettings
from inferd.runtime.errors import ModelLoadError, runtime_message
from inferd.runtime.runners import OrtObject

VERSION: str = onnxruntime.__version__

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


#: A provider and its options, in ONNX Runtime's form.
Provider = tuple[str, dict[str, str]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_SHORT_NAMES = {
    "cpu": CPU,
    "cuda": CUDA,
    "tensorrt": TENSORRT,
    "openvino": "OpenVINOExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "qnn": "QNNExecutionProvider",
}

#: ONNX Runtime's default search, an exhaustive one, costs hundreds of milliseconds per new shape, and every batch size
#: is a new shape. Its default arena doubles with each extension: several models on one device would take up to twice
#: what they need.
_DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {
    CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}
}

#: Providers whose tensors are in CUDA memory.
_ON_CUDA = frozenset({CUDA, TENSORRT})


def built_in() -> list[str]:
    """Return the providers of the installed build of ONNX Runtime, the preferred one first."""
    return list(onnxruntime.get_available_providers())


def preload_cuda() -> None:
    """Load the CUDA libraries from their Python packages, where ONNX Runtime does not search for them."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def attempts(settings: RuntimeSettings, available: Sequence[str]) -> list[list[Provider]]:
    """Return the lists of providers to try in turn, until a session opens with all providers of a list.

    ``auto`` tries CUDA first if the build has it, then the CPU; an explicit list has no fallback. Raises
    `ModelLoadError` for a provider that the build does not have and for options that would be ignored.
    """
    options = {_full_name(name, available): values for name, values in settings.provider_options.items()}
    if options.get(CPU):
        msg = f"provider_options: {CPU} takes no options, got {', '.join(options[CPU])}"
        raise ModelLoadError(msg)
    if settings.providers == "auto":
        wanted = [[CUDA, CPU], [CPU]] if CUDA in available else [[CPU]]
    else:
        wanted = [_explicit(settings.providers, available)]
    return [[(name, {**_DEFAULT_OPTIONS.get(name, {}), **options.get(name, {})}) for name in names] for names in wanted]


def on_cuda(providers: Sequence[str]) -> bool:
    """Whether the preferred provider uses CUDA memory."""
    return bool(providers) and providers[0] in _ON_CUDA


def on_accelerator(providers: Sequence[str]) -> bool:
    """Whether the preferred provider runs elsewhere than on CPU cores."""
    return bool(providers) and providers[0] not in {CPU, _SHORT_NAMES["dnnl"], _SHORT_NAMES["xnnpack"]}


def _explicit(names: Sequence[str], available: Sequence[str]) -> list[str]:
    full = [_full_name(name, available) for name in names]
    for name, full_name in zip(names, full, strict=True):
        if full_name not in available:
            have = ", ".join(available)
            msg = f"providers: {name} is not in the installed build of ONNX Runtime, which has {have}"
            raise ModelLoadError(msg)
        if full.count(full_name) > 1:
            msg = f"providers: expected each name once, got {name} twice"
            raise ModelLoadError(msg)
    return full


def _full_name(name: str, available: Sequence[str]) -> str:
    full = _SHORT_NAMES.get(name.lower(), name)
    if full not in _SHORT_NAMES.values() and full not in available:
        msg = f"providers: expected one of {', '.join(_SHORT_NAMES)} or {', '.join(available)}, got {name}"
        raise ModelLoadError(msg)
    return full
