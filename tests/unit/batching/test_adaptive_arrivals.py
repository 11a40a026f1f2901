"""Whether more requests are worth waiting for."""

from inferd.batching.adaptive import ArrivalPredictor

_MAX_WAIT_S = 0.005


def _round(predictor, now, callers, gap_s=0.0001):
    """``callers`` who come one shortly after another, and a worker that asks each time; as after a common batch."""
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


def test_a_caller_alone_is_never_followed():
    """However fast one caller asks again, nothing more is to be expected."""
    predictor = ArrivalPredictor(max_wait_s=_MAX_WAIT_S)
    for number in range(1000):
        now = number * 0.001
        predictor.arrived(now, 1)
        assert predictor.expected_arrivals(now, 1) == 0


def test_as_many_are_expected_as_were_present_together():
    """Eight callers who wait for their answers all come back."""
    predictor, now = _taught(8)
    predictor.arrived(now, 1)
    assert [predictor.expected_arrivals(now, present) for present in (1, 4, 8, 9)] == [7, 4, 0, 0]


def test_a_slow_model_does_not_make_its_callers_forgotten():
    """Runs of many seconds lie between the rounds, and the next round is expected all the same."""
    predictor, now = _taught(8, pause_s=30.0)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 7


def test_a_pause_between_rounds_is_no_lesson():
    """When everyone is there nobody decides whether to wait, so that the long run after it teaches nothing."""
    predictor, _ = _taught(2, rounds=50, pause_s=30.0)
    assert predictor.expected_arrivals(1e6, 1) == 1


def test_chance_meetings_are_not_waited_for():
    """Callers who meet now and then, but rarely within the longest wait, do not make each other wait."""
    predictor = ArrivalPredictor(max_wait_s=_MAX_WAIT_S)
    predictor.arrived(0.0, 2)
    for second in range(1, 50):
        predictor.arrived(float(second), 1)
        assert predictor.expected_arrivals(float(second), 1) == 0


def test_waiting_in_vain_is_unlearned():
    """Callers who used to come together and now come apart are not waited for much longer."""
    predictor, now = _taught(2)
    held = 0
    for _ in range(20):
        now += 0.5
        predictor.arrived(now, 1)
        held += predictor.expected_arrivals(now, 1) > 0
        predictor.expected_arrivals(now + _MAX_WAIT_S, 1)
    assert 0 < held < 8


def test_nobody_coming_at_all_is_a_lesson_too():
    """The next decision tells that the last one was not followed."""
    predictor, now = _taught(2)
    for _ in range(20):
        now += _MAX_WAIT_S
        predictor.expected_arrivals(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_asking_again_does_not_put_the_lesson_off():
    """A request that comes too late for the first decision is late, although it follows the second closely."""
    predictor, now = _taught(2)
    for _ in range(20):
        predictor.expected_arrivals(now, 1)
        predictor.expected_arrivals(now + 0.6 * _MAX_WAIT_S, 1)
        now += 1.2 * _MAX_WAIT_S
        predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_a_caller_who_comes_back_is_not_the_one_who_was_missing():
    """Once the batch is being answered, an arrival tells nothing of those who were not in it."""
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


def test_an_answer_long_after_the_decision_means_that_nobody_came():
    """The wait would have been in vain."""
    predictor, now = _taught(2)
    for _ in range(20):
        predictor.expected_arrivals(now, 1)
        now += 2 * _MAX_WAIT_S
        predictor.answering(now)
    assert predictor.expected_arrivals(now, 1) == 0


def test_callers_who_have_left_are_forgotten():
    """One fast caller who stays after many is alone again within seconds."""
    predictor, now = _taught(64)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 63
    for _ in range(2500):
        now += 0.001
        predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 0


def test_a_long_wait_gives_callers_as_long_to_come_together():
    """Arrivals that are seconds apart are close together where the wait may be longer."""
    predictor = ArrivalPredictor(max_wait_s=10.0)
    now = 0.0
    for _ in range(3):
        now = _round(predictor, now, 8, gap_s=2.0)
    predictor.arrived(now, 1)
    assert predictor.expected_arrivals(now, 1) == 7
