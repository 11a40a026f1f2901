"""Open a model file on the CPU to see whether ONNX Runtime survives it, and name what that depends on.

Only crashes count: ordinary damage is an error in the server as well, and on another provider perhaps none.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, ParamSpec

import onnxruntime

from inferd.config.settings import ModelSettings
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.external_weights import NO_WEIGHTS, ExternalWeights, find_weights
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.session import open_session
from inferd.runtime.verdict_cache import cache_key, fingerprint

_log = logging.getLogger("inferd.runtime")

Arguments = ParamSpec("Arguments")

#: Opens a model as it will be served, and tries it out; calls the functions once it is open, and once its weight files
#: are known.
OpenAsServed = Callable[[Path, ModelSettings, Callable[[], None], Callable[[ExternalWeights], None]], object]

#: Present where a driver of NVIDIA's is loaded.
_NVIDIA_DEVICE = Path("/dev/nvidiactl")

#: Settings of the runtime without an effect on how a file is opened on the CPU.
_WITHOUT_EFFECT = {
    "allow_spinning",
    "custom_ops",
    "intra_op_threads",
    "max_run_ms",
    "provider_options",
    "providers",
    "shrink_after_s",
    "verdict_cache",
    "warmup",
}


def try_opening(
    path: Path,
    settings: ModelSettings,
    on_weights: Callable[[ExternalWeights], None],
    on_opened: Callable[[], None],
    open_as_served: OpenAsServed = open_session,
) -> None:
    """Open and close the model at ``path``. Raises nothing.

    Calls ``on_weights`` when its weight files are known: all are there, or the file is no model. Calls ``on_opened``
    when it is open, or cannot be opened. Where the server will run it on the CPU too, it is opened by
    ``open_as_served``, which verifies how an ordinary model batches. The server then finds that in the cache, and need
    not do it beside the requests that it serves.
    """
    opened, found = Once(on_opened), Once(on_weights)
    try:
        if runs_on_cpu(settings):
            open_as_served(path, settings, opened, found)
        else:
            _open(path, settings, found)
    except Exception as error:  # noqa: BLE001  (only crashes count)
        _log.debug("%s", error)
    if not _is_model(path):
        found(NO_WEIGHTS)
    opened()


def _is_model(path: Path) -> bool:
    try:
        read_model_file(path)
    except ModelLoadError:
        return False
    return True


def _open(path: Path, settings: ModelSettings, on_weights: Callable[[ExternalWeights], None]) -> None:
    runtime = settings.runtime.model_copy(update={"providers": ["cpu"], "provider_options": {}})
    weights = find_weights(path, read_model_file(path).external_files)
    on_weights(weights)
    declared(open_runtime_session(path, settings.model_copy(update={"runtime": runtime}), weights))


def runs_on_cpu(settings: ModelSettings) -> bool:
    """Whether these settings lead to the CPU on this machine, without asking the driver of a device."""
    providers = settings.runtime.providers
    if providers == "auto":
        return not _NVIDIA_DEVICE.exists()
    return [name.lower() for name in providers] == ["cpu"]


class Once(Generic[Arguments]):
    """Calls a function the first time that it is called."""

    def __init__(self, function: Callable[Arguments, None]) -> None:
        self._function: Callable[Arguments, None] | None = function

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        """Call the function, unless that has been done."""
        function, self._function = self._function, None
        if function is not None:
            function(*args, **kwargs)


def opening_key(path: Path, settings: ModelSettings) -> str:
    """Return the hash of what opening ``path`` depends on, except external weights. Raises `OSError`."""
    runtime = settings.runtime
    facts = {
        "purpose": "opening",
        "onnxruntime": onnxruntime.__version__,
        "libraries": {name: fingerprint(Path(name)) for name in runtime.custom_ops},
        "runtime": runtime.model_dump(mode="json", exclude=_WITHOUT_EFFECT),
    }
    return cache_key([path], facts)


def weight_fingerprints(weights: ExternalWeights) -> dict[str, str]:
    """Return the fingerprints of weight files by their names."""
    return {name: fingerprint(file) for name, file in weights.files.items()}


def are_unchanged(path: Path, fingerprints: Mapping[str, str]) -> bool:
    """Whether the weight files of the model at ``path`` are there with these ``fingerprints``, by their names."""
    names: Iterable[str] = fingerprints
    try:
        return weight_fingerprints(find_weights(path, names)) == fingerprints
    except ModelLoadError:
        return False
