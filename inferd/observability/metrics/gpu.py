"""How busy the GPUs are and how much of their memory is in use, where NVIDIA's management library is there to ask."""

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
    """One device. ``utilization`` is from 0 to 1; None where the device does not tell, as parts of one do not."""

    index: str
    uuid: str
    utilization: float | None
    used_bytes: int
    total_bytes: int


def _pynvml() -> Nvml:
    return importlib.import_module("pynvml")


class GpuSampler:
    """Asks the driver now and then, in a thread of its own: an answer may take long, and no scrape waits for it.

    Without the library, a driver or a device there are no samples, and the thread ends at once.
    Threads: ``start`` and ``stop`` are for the main thread, ``samples`` any. ``_samples`` is replaced as a whole.
    """

    def __init__(self, load: Callable[[], Nvml] = _pynvml, *, interval_s: float = _INTERVAL_S) -> None:
        self._load = load
        self._interval_s = interval_s
        self._samples: Sequence[GpuSample] = ()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-sampler", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. Does not wait for an answer that is under way."""
        self._stopping.set()

    def samples(self) -> Sequence[GpuSample]:
        """Return what was last answered; never blocks."""
        return self._samples

    def _run(self) -> None:
        try:
            nvml = self._load()
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
        except Exception as error:  # noqa: BLE001  (whatever is missing or broken, a server without these metrics serves)
            _log.debug("no GPU to tell of: %r", error)
            return
        while count and not self._stopping.is_set():
            self._samples = [sample for index in range(count) if (sample := _sample(nvml, index)) is not None]
            self._stopping.wait(self._interval_s)


def _sample(nvml: Nvml, index: int) -> GpuSample | None:
    """Ask about one device; None if it does not answer, as one that has fallen off the bus does not."""
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
