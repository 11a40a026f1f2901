"""Utilization and memory of the GPUs, from NVIDIA's management library where it is installed."""

import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger(__name__)

_INTERVAL_S = 2.0

#: NVIDIA's module ``pynvml``, which has no types.
Nvml = Any


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuSample:
    """One device. ``utilization`` is from 0 to 1; None if the device does not report it, as MIG devices do not."""

    index: str
    uuid: str
    utilization: float | None
    used_bytes: int
    total_bytes: int


def _pynvml() -> Nvml:
    return importlib.import_module("pynvml")


class GpuSampler:
    """Polls the driver in a background thread, because a query may take long and no scrape should wait for it.

    Without the library, a driver or a device there are no samples, and the thread ends immediately. An error of a query
    is logged, and leaves no samples until a later query succeeds.
    Threads: ``start`` and ``stop`` the main one, ``samples`` any. ``_samples`` is replaced as a whole.
    """

    def __init__(self, load: Callable[[], Nvml] = _pynvml, *, interval_s: float = _INTERVAL_S) -> None:
        self._load = load
        self._interval_s = interval_s
        self._samples: Sequence[GpuSample] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling. Does not wait for a query in progress."""
        self._stopping.set()

    def samples(self) -> Sequence[GpuSample]:
        """Return the latest samples; never blocks."""
        return self._samples

    def _run(self) -> None:
        try:
            nvml = self._load()
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except Exception as error:  # noqa: BLE001  (whatever is missing or broken, the server works without these metrics)
            _log.debug("no GPU metrics: %r", error)
            return
        while count and not self._stopping.is_set():
            self._samples = _sample_all(nvml, count)
            self._stopping.wait(self._interval_s)


def _sample_all(nvml: Nvml, count: int) -> Sequence[GpuSample]:
    try:
        return [sample for index in range(count) if (sample := _sample(nvml, index)) is not None]
    except Exception:  # noqa: BLE001  one failure must not prevent later samples, and old ones would be wrong
        _log.exception("sampling GPUs failed")
        return ()


def _sample(nvml: Nvml, index: int) -> GpuSample | None:
    """Query one device; None if it does not answer, for example because it has fallen off the bus."""
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        uuid = nvml.nvmlDeviceGetUUID(device)
    except nvml.NVMLError:
        return None
    try:
        utilization = nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
    except nvml.NVMLError:
        utilization = None
    return GpuSample(
        index=str(index), uuid=uuid, utilization=utilization, used_bytes=memory.used, total_bytes=memory.total
    )
