"""Learning how many requests to expect within the wait."""

from inferd.batching.adaptive import ArrivalPredictor

_MAX_WAIT_S = 0.005


def _round(predictor, now, callers, gap_s=0.0001):
    """Let ``callers`` arrive shortly after one another, and the worker decide after each, as after a batch."""
    for present in range(1, callers + 1):
        now += gap_s
        predictor.arrived(now, present)
        predictor.expected_arrivals(now, present)
    return now


def _taught(callers, rounds=8, pause_s=0.02, **gaps):
    predictor = ArrivalPredictor(max_wait_s=_MAX_WAIT_S)
    now = 0.0
    for _ in range(rounds):
        now = _round(predictor, now, callers, **gaps) + pause_s
    return predictor, now


def test_expects_nothing_after_a_single_caller():
    """However fast one caller repeats its request, no other is expected."""
    predictor = ArrivalPredictor(max_wait_s=_MAX_WAIT_S)
    for number in range(1000):
        now = number * 0.001
        predictor.arrived(now, 1)
        assert predictor.expected_arrivals(now, 1) == 0


def test_expects_as_many_as_were_queued_together():
    """Eight closed-loop callers are all expected back."""
    predictor, now = _taught(8)
    predictor.arrived(now, 1)
    assert [predictor.expected_arrivals(now, present) for present in (1, 4, 8, 9)] == [7, 4, 0, 0]


def test_expectation_survives_slow_runs():
    """Runs of many seconds between the rounds do not change the expectation."""
    predictor, now = _taught(8, pause_s=30.0)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 7


def test_pause_between_rounds_teaches_nothing():
    """With all callers present no decision is made, so the long run that follows teaches nothing."""
    predictor, _ = _taught(2, rounds=50, pause_s=30.0)
    assert predictor.expected_arrivals(1e6, 1) == 1


def test_rare_coincidences_are_not_expected():
    """Callers that only rarely arrive within the longest wait do not delay each other."""
    predictor = ArrivalPredictor(max_wait_s=_MAX_WAIT_S)
    predictor.arrived(0.0, 2)
    for second in range(1, 50):
        predictor.arrived(float(second), 1)
        assert predictor.expected_arrivals(float(second), 1) == 0


def test_expectation_drops_when_arrivals_drift_apart():
    """Callers that no longer arrive together are soon no longer waited for."""
    predictor, now = _taught(2)
    held = 0
    for _ in range(20):
        now += 0.5
        predictor.arrived(now, 1)
        held += predictor.expected_arrivals(now, 1) > 0
        predictor.expected_arrivals(now + _MAX_WAIT_S, 1)
    assert 0 < held < 8


def test_decision_without_arrivals_lowers_the_expectation():
    """The next decision shows that nothing followed the last one."""
    predictor, now = _taught(2)
    for _ in range(20):
        now += _MAX_WAIT_S
        predictor.expected_arrivals(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_repeated_decisions_do_not_extend_the_wait():
    """A request that is late for the first decision counts as late, although it follows the second closely."""
    predictor, now = _taught(2)
    for _ in range(20):
        predictor.expected_arrivals(now, 1)
        predictor.expected_arrivals(now + 0.6 * _MAX_WAIT_S, 1)
        now += 1.2 * _MAX_WAIT_S
        predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_returning_caller_is_not_the_expected_one():
    """Once the batch is being answered, an arrival says nothing about callers outside it."""
    predictor, now = _taught(2)
    held = 0
    for _ in range(20):
        predictor.arrived(now, 1)
        held += predictor.expected_arrivals(now, 1) > 0
        now += _MAX_WAIT_S
        predictor.expected_arrivals(now, 1)
        now += 0.001
        predictor.answering(now)
    assert 0 < held < 8


def test_late_answer_counts_as_no_arrival():
    """The wait would have been in vain."""
    predictor, now = _taught(2)
    for _ in range(20):
        predictor.expected_arrivals(now, 1)
        now += 2 * _MAX_WAIT_S
        predictor.answering(now)
    assert predictor.expected_arrivals(now, 1) == 0


def test_forgets_callers_that_left():
    """A fast caller that remains after many others is alone again within seconds."""
    predictor, now = _taught(64)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 63
    for _ in range(2500):
        now += 0.001
        predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_longer_wait_allows_larger_gaps():
    """Arrivals that are seconds apart count as close if the wait may be longer than that."""
    predictor = ArrivalPredictor(max_wait_s=10.0)
    now = 0.0
    for _ in range(3):
        now = _round(predictor, now, 8, gap_s=2.0)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 7
