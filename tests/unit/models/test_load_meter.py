"""What loads are measured to take, with gauges that do as they are told."""

import pytest

from inferd.models.load_meter import Gauges, LoadMeter, peak_bytes, reset_peak
from inferd.models.residency import Memory
from tests.fakes import FakeClock


class FakeGauges:
    def __init__(self) -> None:
        self.resident = self.device = self.peak = 1000
        self.calls: list[str] = []

    def gauges(self) -> Gauges:
        return Gauges(
            resident=lambda: self.resident,
            device=lambda: self.device,
            reset_peak=lambda: self.calls.append("reset"),
            peak=lambda: self.peak,
            free=lambda: self.calls.append("free"),
        )


@pytest.fixture
def gauges():
    return FakeGauges()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def meter(gauges, clock):
    return LoadMeter(clock, gauges.gauges())


def test_growth_and_peak(meter, gauges, clock):
    """Of the process since its freed memory has been given back, and of the devices."""
    with meter.load() as measurement:
        gauges.resident, gauges.peak, gauges.device = 3000, 5000, 1700
        clock.advance(2.0)
    result = measurement.result
    assert (result.steady, result.peak) == (Memory(2000, 700), Memory(4000, 700))
    assert (result.load_s, result.is_alone, gauges.calls) == (2.0, True, ["free", "reset"])


def test_process_that_shrinks(meter, gauges):
    """A load never takes less than nothing."""
    with meter.load() as measurement:
        gauges.resident = gauges.device = gauges.peak = 0
    assert (measurement.result.steady, measurement.result.peak) == (Memory(), Memory())


@pytest.mark.parametrize("other", ["load", "unload"])
def test_load_beside_another_is_not_alone(meter, other):
    """Neither that nor what has begun before counts as alone."""
    with meter.load() as first, getattr(meter, other)():
        pass
    with getattr(meter, other)(), meter.load() as second:
        pass
    assert not first.result.is_alone
    assert not second.result.is_alone
    with meter.load() as third:
        pass
    assert third.result.is_alone


def test_failed_load_is_over(meter):
    """It is over for the next one."""
    with pytest.raises(ValueError, match="damaged"), meter.load():
        raise ValueError("damaged")
    with meter.load() as measurement:
        pass
    assert measurement.result.is_alone


def test_peak_of_the_process():
    """The system counts it since it was reset."""
    block = bytearray(64 * 2**20)
    high = peak_bytes()
    del block
    reset_peak()
    assert peak_bytes() < high - 32 * 2**20
