"""Measure the memory and time of loads: growth and peak of the process, by the system's counts, and of devices."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from inferd.models.residency import NO_MEMORY, Memory
from inferd.runtime.device_memory import device_bytes
from inferd.runtime.resources import resident_bytes, trim_heap

_log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")
#: Writing 5 sets the peak of the resident set to its present size; see proc_pid_clear_refs(5).
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """Memory of a load at its end and at its peak, and its time. ``is_alone``: no other load or unload took place."""

    steady: Memory = NO_MEMORY
    peak: Memory = NO_MEMORY
    is_alone: bool = False
    load_s: float = 0.0

    def with_reserved(self, memory: Memory) -> "Measured":
        """Return the same plus ``memory`` that is reserved, and taken only later."""
        return replace(self, steady=self.steady + memory, peak=self.peak + memory)


NOTHING_MEASURED = Measured()


def reset_peak() -> None:
    """Restart the count of the peak of the resident set, where the system allows it."""
    with suppress(OSError):
        _CLEAR_REFS.write_text(_RESET_PEAK)


def peak_bytes() -> int:
    """Return the peak of the resident set; 0 if the system does not count it."""
    with suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """Functions that read the memory of the process and of devices, and the peak of the former since its reset."""

    resident: Callable[[], int] = resident_bytes
    device: Callable[[], int] = device_bytes
    reset_peak: Callable[[], None] = reset_peak
    peak: Callable[[], int] = peak_bytes
    free: Callable[[], None] = trim_heap


@dataclass(slots=True)
class Measurement:
    """The state at the begin of a load; ``result`` is set when it has ended."""

    changes: int
    began_at: float
    host: int
    device: int
    result: Measured = NOTHING_MEASURED


class LoadMeter:
    """Measures loads, which may run in parallel. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, gauges: Gauges | None = None) -> None:
        self._clock = clock
        self._gauges = gauges or Gauges()
        self._lock = threading.Lock()
        #: Number of loads and unloads in progress, and of those that have begun so far.
        self._in_progress = 0
        self._begun = 0

    @contextmanager
    def load(self) -> Iterator[Measurement]:
        """Measure a load that runs in this context."""
        with self._change() as is_first:
            if is_first:
                # Freed memory would be used again without growth of the process.
                self._gauges.free()
                self._gauges.reset_peak()
            measurement = Measurement(self._begun, self._clock(), self._gauges.resident(), self._gauges.device())
            yield measurement
            measurement.result = self._result(measurement, is_alone=is_first and measurement.changes == self._begun)

    @contextmanager
    def unload(self) -> Iterator[None]:
        """Mark loads in progress as not alone while an unload runs in this context."""
        with self._change():
            yield

    @contextmanager
    def _change(self) -> Iterator[bool]:
        with self._lock:
            is_first = not self._in_progress
            self._in_progress += 1
            self._begun += 1
        try:
            yield is_first
        finally:
            with self._lock:
                self._in_progress -= 1

    def _result(self, measurement: Measurement, *, is_alone: bool) -> Measured:
        resident, device = self._gauges.resident(), self._gauges.device()
        steady = Memory(max(resident - measurement.host, 0), max(device - measurement.device, 0))
        highest = max(self._gauges.peak(), resident) if is_alone else resident
        return Measured(
            steady=steady,
            peak=Memory(max(highest - measurement.host, 0), steady.device),
            is_alone=is_alone,
            load_s=self._clock() - measurement.began_at,
        )
