"""Read the memory in use on NVIDIA's devices, from their management library where it is installed."""

import functools
import importlib
import logging
from typing import Any

_log = logging.getLogger("inferd.runtime")

#: NVIDIA's module ``pynvml``, which has no types.
_Nvml = Any


@functools.cache
def _library() -> _Nvml | None:
    """Return the library, ready to be asked; None without it, a driver or a device."""
    try:
        nvml: _Nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return nvml if nvml.nvmlDeviceGetCount() else None
    except Exception as error:  # noqa: BLE001  (whatever is missing or broken, models are loaded without this)
        _log.debug("the memory of devices is not measured: %r", error)
        return None


def device_bytes() -> int:
    """Return the memory that is taken on all devices, by any process; 0 without devices that can be asked."""
    nvml = _library()
    if nvml is None:
        return 0
    try:
        devices = map(nvml.nvmlDeviceGetHandleByIndex, range(nvml.nvmlDeviceGetCount()))
        return sum(int(nvml.nvmlDeviceGetMemoryInfo(device).used) for device in devices)
    except nvml.NVMLError as error:
        _log.debug("the memory of devices cannot be read: %r", error)
        return 0
