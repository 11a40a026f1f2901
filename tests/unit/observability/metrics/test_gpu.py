"""What is told of GPUs, and that nothing is where there is none."""

import threading
from types import SimpleNamespace

import pytest

from inferd.observability.metrics.gpu import GpuSample, GpuSampler
from tests.patience import PATIENCE_S


class FakeNvml:
    """NVIDIA's module with two devices, of which the second is a part of one and tells less."""

    class NVMLError(Exception):
        """What the module raises."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.lost: set[int] = set()
        self.never_there: set[int] = set()

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
    """Ask once and end."""
    sampler = GpuSampler(lambda: nvml, interval_s=0.0)
    sampler.start()
    for _ in range(4):
        assert nvml.asked.acquire(timeout=PATIENCE_S)
    sampler.stop()
    sampler._thread.join(PATIENCE_S)
    return sampler


def test_each_device_is_told_of() -> None:
    """With as much as it tells."""
    assert sampled(FakeNvml()).samples() == [FIRST, SECOND]


def test_a_device_that_is_lost_leaves_the_others() -> None:
    """It has no samples rather than old ones."""
    nvml = FakeNvml()
    nvml.lost = {1}
    assert sampled(nvml).samples() == [FIRST]


def test_a_device_that_was_never_there_leaves_the_others() -> None:
    """One that has failed before the server started is counted by the driver all the same."""
    nvml = FakeNvml()
    nvml.never_there = {0}
    assert sampled(nvml).samples() == [SECOND]


def test_who_asks_never_waits_for_the_driver() -> None:
    """While it hangs, what it said last is what there is."""
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
def test_nothing_is_told_where_there_is_nothing_to_ask(error: Exception) -> None:
    """Neither the module nor a driver is needed."""

    def load() -> FakeNvml:
        raise error

    sampler = GpuSampler(load)
    sampler.start()
    sampler._thread.join(PATIENCE_S)
    assert not sampler._thread.is_alive()
    assert sampler.samples() == ()
    sampler.stop()


def test_a_machine_without_the_library_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Nearly every machine is one; the real module is looked for here, and whether it is there makes no difference."""
    with caplog.at_level("INFO"):
        sampler = GpuSampler(interval_s=0.0)
        sampler.start()
        sampler.stop()
        sampler._thread.join(PATIENCE_S)
    assert caplog.records == []
