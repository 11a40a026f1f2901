"""Measures what loads take: the growth of the process and its peak, as the system counts it, and of the devices."""

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
    """What a load took: memory when it has ended and at its peak, and time. ``is_alone``: nothing else came or went."""

    steady: Memory = NO_MEMORY
    peak: Memory = NO_MEMORY
    is_alone: bool = False
    load_s: float = 0.0

    def with_reserved(self, memory: Memory) -> "Measured":
        """Return the same with ``memory`` that is reserved, and taken only later."""
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
    """What is read: the memory of the process and of devices, and the peak of the former since it was reset."""

    resident: Callable[[], int] = resident_bytes
    device: Callable[[], int] = device_bytes
    reset_peak: Callable[[], None] = reset_peak
    peak: Callable[[], int] = peak_bytes
    free: Callable[[], None] = trim_heap


@dataclass(slots=True)
class Measurement:
    """A load that is being measured; ``result`` is complete when it has ended."""

    changes: int
    began_at: float
    host: int
    device: int
    result: Measured = NOTHING_MEASURED


class LoadMeter:
    """Measures loads, side by side or alone. Any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, gauges: Gauges | None = None) -> None:
        self._clock = clock
        self._gauges = gauges or Gauges()
        self._lock = threading.Lock()
        #: Loads and unloads that go on, and how many have begun so far.
        self._going_on = 0
        self._begun = 0

    @contextmanager
    def load(self) -> Iterator[Measurement]:
        """Measure what is done meanwhile."""
        with self._change() as is_first:
            if is_first:
                # What has been freed would be used again, and so not be growth.
                self._gauges.free()
                self._gauges.reset_peak()
            measurement = Measurement(self._begun, self._clock(), self._gauges.resident(), self._gauges.device())
            yield measurement
            measurement.result = self._result(measurement, is_alone=is_first and measurement.changes == self._begun)

    @contextmanager
    def unload(self) -> Iterator[None]:
        """Let no load count as alone that goes on meanwhile."""
        with self._change():
            yield

    @contextmanager
    def _change(self) -> Iterator[bool]:
        with self._lock:
            is_first = not self._going_on
            self._going_on += 1
            self._begun += 1
        try:
            yield is_first
        finally:
            with self._lock:
                self._going_on -= 1

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
