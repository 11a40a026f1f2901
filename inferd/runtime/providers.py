"""Which execution providers to open a session with: names, defaults and refusals."""

from collections.abc import Mapping, Sequence

import onnxruntime

from inferd.config.settings import RuntimeSettings
from inferd.runtime.errors import ModelLoadError

#: A provider and its options, as ONNX Runtime takes them.
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

#: The exhaustive search that is ONNX Runtime's default costs hundreds of milliseconds for every new shape, and every
#: batch size is a new shape.
_DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {CUDA: {"cudnn_conv_algo_search": "HEURISTIC"}}

#: Providers whose tensors live in CUDA's memory.
_ON_CUDA = frozenset({CUDA, TENSORRT})


def built_in() -> list[str]:
    """Return the providers that the installed build of ONNX Runtime has, the preferred one first."""
    return list(onnxruntime.get_available_providers())


def preload_cuda() -> None:
    """Load CUDA's libraries from their Python packages, where ONNX Runtime would not look for them by itself."""
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


def attempts(settings: RuntimeSettings, available: Sequence[str]) -> list[list[Provider]]:
    """Return the lists of providers to try, one after the other until a session opens with all of its list.

    ``auto`` has CUDA before the CPU where the build offers it; an explicit list has only itself. Raises
    `ModelLoadError` for a name that the build does not have and for options that would be ignored.
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
    """Whether a session with these providers runs in CUDA's memory first of all."""
    return bool(providers) and providers[0] in _ON_CUDA


def on_accelerator(providers: Sequence[str]) -> bool:
    """Whether a session with these providers does its work elsewhere than on the CPU's cores."""
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
