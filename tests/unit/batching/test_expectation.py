"""Whether more requests are worth waiting for."""

from inferd.batching.expectation import Expectation

_MAX_WAIT_S = 0.005


def _burst(expectation, now, callers):
    """``callers`` who come shortly one after another, as after a batch that answered them all."""
    for present in range(1, callers + 1):
        now += 0.0001
        expectation.arrived(now, present)
    return now


def test_a_caller_alone_is_never_followed():
    """However fast one caller asks again, nothing more is to be expected."""
    expectation = Expectation(max_wait_s=_MAX_WAIT_S)
    for number in range(1000):
        expectation.arrived(number * 0.001, 1)
        assert expectation.further(1) == 0


def test_as_many_are_expected_as_were_present_together():
    """Eight callers who wait for their answers all come back."""
    expectation = Expectation(max_wait_s=_MAX_WAIT_S)
    now = 0.0
    for _ in range(5):
        now = _burst(expectation, now, 8) + 0.02
    assert [expectation.further(present) for present in (1, 4, 8, 9)] == [7, 4, 0, 0]


def test_a_slow_model_does_not_make_its_callers_forgotten():
    """Runs of many seconds lie between the bursts, and the next burst is expected all the same."""
    expectation = Expectation(max_wait_s=_MAX_WAIT_S)
    now = 0.0
    for _ in range(8):
        now = _burst(expectation, now, 8) + 30.0
    expectation.arrived(now, 1)
    assert expectation.further(1) == 7


def test_a_long_wait_gives_callers_as_long_to_come_together():
    """Arrivals that are seconds apart are close together where the wait may be longer."""
    expectation = Expectation(max_wait_s=10.0)
    for number in range(24):
        expectation.arrived(number * 2.0, number % 8 + 1)
    assert expectation.further(1) == 7


def test_chance_meetings_are_not_waited_for():
    """Callers who meet now and then, but rarely within the longest wait, do not make each other wait."""
    expectation = Expectation(max_wait_s=_MAX_WAIT_S)
    for second in range(50):
        expectation.arrived(float(second), 1)
    expectation.arrived(50.0, 2)
    assert expectation.further(1) == 0


def test_callers_who_have_left_are_forgotten():
    """One fast caller who stays after many is alone again within seconds."""
    expectation = Expectation(max_wait_s=_MAX_WAIT_S)
    now = _burst(expectation, 0.0, 64)
    assert expectation.further(1) == 63
    for _ in range(2500):
        now += 0.001
        expectation.arrived(now, 1)
    assert expectation.further(1) == 0
