"""GPU samples, and their absence without a GPU."""

import threading
from types import SimpleNamespace

import pytest

from inferd.observability.metrics.gpu import GpuSample, GpuSampler
from tests.patience import PATIENCE_S


class FakeNvml:
    """NVIDIA's module with two devices, of which the second is a MIG device and reports less."""

    class NVMLError(Exception):
        """What the module raises."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.lost: set[int] = set()
        self.never_there: set[int] = set()
        self.faults = 0

    def nvmlInit(self) -> None:  # noqa: N802  (NVIDIA's name, as below)
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index in self.never_there:
            self.asked.release()
            raise self.NVMLError
        return index

    def nvmlDeviceGetUUID(self, device: int) -> str:  # noqa: N802
        return f"GPU-{device}"

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        self.asked.release()
        assert self.gate.wait(PATIENCE_S)
        if self.faults:
            self.faults -= 1
            raise OSError("not an error of NVML")
        if device in self.lost:
            raise self.NVMLError
        return SimpleNamespace(used=10 + device, total=40)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:  # noqa: N802
        if device == 1:
            raise self.NVMLError
        return SimpleNamespace(gpu=25, memory=3)


FIRST = GpuSample(index="0", uuid="GPU-0", utilization=0.25, used_bytes=10, total_bytes=40)
SECOND = GpuSample(index="1", uuid="GPU-1", utilization=None, used_bytes=11, total_bytes=40)


def sampled(nvml: FakeNvml) -> GpuSampler:
    """Query once and stop."""
    sampler = GpuSampler(lambda: nvml, interval_s=0.0)
    sampler.start()
    for _ in range(4):
        assert nvml.asked.acquire(timeout=PATIENCE_S)
    sampler.stop()
    sampler._thread.join(PATIENCE_S)
    return sampler


def test_samples_each_device() -> None:
    """With the values that it reports."""
    assert sampled(FakeNvml()).samples() == [FIRST, SECOND]


def test_lost_device_has_no_sample() -> None:
    """Rather than an old one; the others keep theirs."""
    nvml = FakeNvml()
    nvml.lost = {1}
    assert sampled(nvml).samples() == [FIRST]


def test_device_that_failed_before_the_start() -> None:
    """The driver still counts it."""
    nvml = FakeNvml()
    nvml.never_there = {0}
    assert sampled(nvml).samples() == [SECOND]


def test_samples_again_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """An error other than NVML's is logged and does not end the thread."""
    nvml = FakeNvml()
    nvml.faults = 1
    assert sampled(nvml).samples() == [FIRST, SECOND]
    assert [entry.getMessage() for entry in caplog.records] == ["sampling GPUs failed"]


def test_samples_do_not_wait_for_the_driver() -> None:
    """While it hangs, the last samples are returned."""
    nvml = FakeNvml()
    nvml.gate.clear()
    sampler = GpuSampler(lambda: nvml)
    sampler.start()
    assert nvml.asked.acquire(timeout=PATIENCE_S)
    assert sampler.samples() == ()
    sampler.stop()
    nvml.gate.set()
    sampler._thread.join(PATIENCE_S)
    assert not sampler._thread.is_alive()


@pytest.mark.parametrize("error", [ImportError("pynvml"), FakeNvml.NVMLError("no driver")])
def test_no_samples_without_library_or_driver(error: Exception) -> None:
    """Neither is needed."""

    def load() -> FakeNvml:
        raise error

    sampler = GpuSampler(load)
    sampler.start()
    sampler._thread.join(PATIENCE_S)
    assert not sampler._thread.is_alive()
    assert sampler.samples() == ()
    sampler.stop()


def test_logs_no_warning_without_library(caplog: pytest.LogCaptureFixture) -> None:
    """Uses the real module, whether or not it is installed."""
    with caplog.at_level("INFO"):
        sampler = GpuSampler(interval_s=0.0)
        sampler.start()
        sampler.stop()
        sampler._thread.join(PATIENCE_S)
    assert caplog.records == []
