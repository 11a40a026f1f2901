"""Predicted ends of requests, and what follows for the queue."""

import math

import pytest

from inferd.batching.cost_model import CostModel
from inferd.batching.forecast import DrainRate, Forecast
from inferd.batching.request import Batch
from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller

NOW = 100.0


def _forecast(cost=None, *, max_rows=8, workers=1, max_delay_s=0.25, rate=None, runs=(1, 8), fixed_s=0.01, row_s=0.001):
    """A forecast for a model with exact costs that has run all of ``runs`` lately."""
    if cost is None:
        cost = CostModel()
        for rows in [*runs] * 4:
            cost.ran(rows, fixed_s + rows * row_s, now=NOW)
        cost.factor = 1.0
    forecast = Forecast(cost, max_rows=max_rows, workers=workers, max_delay_s=max_delay_s, jitter=lambda: 0.0)
    forecast.drain.rows_per_s = rate
    return forecast


def _waiting(*requests):
    waiting = WaitingRequests(max_rows=1000, max_bytes=10**6, priority_levels=3)
    for request in requests:
        request.enqueued_at = NOW
        waiting.add(request)
    return waiting


def _due_in(seconds, **fields):
    return Caller(deadline=NOW + seconds, **fields).request


def _comes_too_late(forecast, request, waiting=None, running=(), now=NOW):
    return forecast.comes_too_late(request, waiting or _waiting(), running, now)


@pytest.mark.parametrize(
    ("full_s", "max_delay_s", "limit"),
    [
        (0.01, 0.25, 100),
        (0.03, 0.25, 150),
        (0.1, 0.25, 250),
        (0.1, 1.0, 500),
        (0.01, 0.05, 50),
        (0.01, 0.001, 16),
        (0.1, 0.0, 700),
        (0.1, 10.0, 500),
        (1.0, 10.0, 700),
    ],
)
def test_queue_limit_is_what_drains_in_five_batches_or_100_ms(full_s, max_delay_s, limit):
    """At most in the configured delay; never less than two batches per worker, nor more than the bound."""
    forecast = _forecast(fixed_s=full_s, row_s=0.0, max_delay_s=max_delay_s, rate=1000.0)
    assert forecast.row_limit(700, 8) == limit


def test_the_queue_has_no_limit_while_nothing_is_known():
    """Then the cost of a full batch stands for the drain rate until that is measured."""
    assert _forecast(CostModel()).row_limit(700, 8) == 700
    assert _forecast(fixed_s=0.04, row_s=0.0, workers=2).row_limit(700, 8) == int(0.2 * 2 * 8 / 0.04)


@pytest.mark.parametrize(("timeout_s", "is_late"), [(0.0105, True), (0.0115, False)])
def test_a_request_alone_needs_the_time_of_its_run(timeout_s, is_late):
    """A run of one row takes 11 ms."""
    assert _comes_too_late(_forecast(), _due_in(timeout_s)) is is_late


def test_a_large_request_needs_the_time_of_all_its_pieces():
    """20 rows are two full batches of 18 ms, and one of 4 rows in between the known sizes."""
    forecast = _forecast()
    assert _comes_too_late(forecast, _due_in(0.049, rows=20))
    assert not _comes_too_late(forecast, _due_in(0.051, rows=20))


@pytest.mark.parametrize(("timeout_s", "is_late"), [(0.070, True), (0.074, False)])
def test_what_is_served_before_takes_its_time(timeout_s, is_late):
    """16 rows at 444 rows/s take 36 ms, its own batch 18 ms, and another 18 ms because batches are not always full."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.05) for _ in range(16)))
    assert _comes_too_late(forecast, _due_in(timeout_s), waiting) is is_late


@pytest.mark.parametrize(("ahead", "needed_s"), [(0, 0.011), (2, 0.0175), (4, 0.024), (7, 0.03375), (8, 0.054)])
def test_margin_grows_with_the_rows_ahead_until_it_is_a_batch(ahead, needed_s):
    """The fewer rows wait the more likely it is that all of them run in the next batch."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.001) for _ in range(ahead)))
    assert _comes_too_late(forecast, _due_in(needed_s - 0.0001), waiting)
    assert not _comes_too_late(forecast, _due_in(needed_s + 0.0001), waiting)


def test_only_what_is_served_before_counts():
    """Neither lower priorities nor later deadlines delay a request."""
    forecast = _forecast(rate=8 / 0.018)
    others = [_due_in(0.5) for _ in range(16)] + [_due_in(0.01, priority=2) for _ in range(16)]
    assert not _comes_too_late(forecast, _due_in(0.05), _waiting(*others))
    assert _comes_too_late(forecast, _due_in(0.05, priority=3), _waiting(*others))


def test_a_request_that_makes_others_late_is_rejected():
    """Those behind it keep what they were admitted for."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.057) for _ in range(8)))
    assert not _comes_too_late(forecast, _due_in(0.05, rows=1), waiting)
    assert _comes_too_late(forecast, _due_in(0.05, rows=8), waiting)


def test_running_batches_delay_the_start_only_if_no_worker_is_free():
    """Neither one that is being answered nor one outside the queue occupies a worker."""
    running = Batch(requests=[], rows=8, started_at=NOW - 0.008)
    assert _comes_too_late(_forecast(), _due_in(0.020), running=[running])
    assert not _comes_too_late(_forecast(), _due_in(0.022), running=[running])
    assert not _comes_too_late(_forecast(workers=2), _due_in(0.012), running=[running])
    running.answering = True
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[running])
    outside = Batch(requests=[], rows=8, started_at=NOW, outside_queue=True)
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[outside])


def test_a_running_request_in_pieces_occupies_the_worker_for_all_of_them():
    """80 rows are ten full batches of 18 ms."""
    running = Batch(requests=[], rows=80, started_at=NOW)
    assert _comes_too_late(_forecast(), _due_in(0.190), running=[running])
    assert not _comes_too_late(_forecast(), _due_in(0.192), running=[running])


def test_a_run_that_takes_longer_than_predicted_is_taken_to_end_now():
    """The worker may be free at any moment."""
    running = Batch(requests=[], rows=8, started_at=NOW - 5.0)
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[running])


def test_time_between_the_run_and_the_answers_counts():
    """Averaged over batches."""
    forecast = _forecast()
    for _ in range(100):
        forecast.ran(Batch(requests=[], rows=8, started_at=NOW), 0.018, NOW + 0.023)
    assert forecast.batch_s(8) == pytest.approx(0.023, rel=0.01)
    assert _comes_too_late(forecast, _due_in(0.0155))
    assert not _comes_too_late(forecast, _due_in(0.0165))


def test_rejecting_needs_the_usual_duration_of_a_run_not_the_average():
    """With noise a request has to be in time in 19 of 20 runs."""
    forecast = _forecast()
    forecast.cost.factor = 2.0
    assert _comes_too_late(forecast, _due_in(0.021))
    assert not _comes_too_late(forecast, _due_in(0.023))


def test_nothing_is_rejected_while_nothing_is_known():
    """Neither without a run, nor from the seeds of warm-up alone, nor of a size far from all that have run."""
    seeded = CostModel()
    seeded.seed(1, 5.0)
    for forecast in (
        _forecast(CostModel()),
        _forecast(seeded),
        _forecast(runs=(8,)),
        _forecast(runs=(1,), max_rows=64),
    ):
        request = _due_in(0.0001, rows=4)
        assert not _comes_too_late(forecast, request)
        assert not forecast.cannot_finish(request, 4, NOW)


@pytest.mark.parametrize("seconds", [2.0, 100.0])
def test_nothing_is_rejected_from_old_predictions(seconds):
    """A model that became fast again would never run, and its prediction never be corrected."""
    forecast, now = _forecast(), NOW + seconds
    request = Caller(deadline=now + 0.0001).request
    assert not _comes_too_late(forecast, request, now=now)
    assert not forecast.cannot_finish(request, 1, now)


def test_predictions_that_prove_wrong_are_corrected_by_those_that_are_admitted():
    """Requests with 5 ms to go, one after the other, for a model that has become fast: one a second, then all."""
    forecast, now, admitted = _forecast(), NOW, []
    for number in range(1000):
        now += 0.01
        request = Caller(deadline=now + 0.005).request
        if not _comes_too_late(forecast, request, now=now):
            admitted.append(number)
            forecast.cost.ran(1, 0.001, now=now)
    assert 0 < admitted[0] < 120
    assert set(range(700, 1000)) <= set(admitted)


def test_a_request_cannot_finish_if_its_own_run_takes_too_long():
    """By the average run, as it has been admitted and may be lucky."""
    forecast = _forecast()
    forecast.cost.factor = 2.0
    assert forecast.cannot_finish(_due_in(0.0105), 1, NOW)
    assert not forecast.cannot_finish(_due_in(0.0115), 1, NOW)


def test_under_load_a_request_has_to_finish_in_half_a_batch():
    """Saving it by a small batch would make all others later: 4 rows take 14 ms."""
    forecast = _forecast()
    assert forecast.cannot_finish(_due_in(0.0135), 8, NOW)
    assert not forecast.cannot_finish(_due_in(0.0135), 7, NOW)
    assert not forecast.cannot_finish(_due_in(0.0145), 8, NOW)


def test_a_request_without_a_deadline_is_never_late():
    """Whatever waits."""
    forecast = _forecast(rate=0.001)
    assert not _comes_too_late(forecast, Caller().request, _waiting(*(_due_in(0.05) for _ in range(100))))
    assert not forecast.cannot_finish(Caller().request, 100, NOW)


def test_hint_is_what_the_waiting_rows_take_and_is_spread():
    """From half of it to all of it, so that clients that were rejected together do not return together."""
    for jitter, hint in ((0.0, 0.2), (0.5, 0.15), (1.0, 0.1)):
        forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=0.25, jitter=lambda jitter=jitter: jitter)
        forecast.drain.rows_per_s = 500.0
        assert forecast.retry_after_s(100) == pytest.approx(hint)


def test_hints_differ_without_being_told_to():
    """The default is random."""
    forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=0.0)
    forecast.drain.rows_per_s = 500.0
    hints = {forecast.retry_after_s(500) for _ in range(50)}
    assert len(hints) > 1
    assert all(0.5 <= hint <= 1.0 for hint in hints)


@pytest.mark.parametrize("running_rows", [1, 8, 80])
def test_far_deadlines_need_no_look_at_the_queue(running_rows):
    """Beyond `ample_s` a request is in time at the end of a queue that is full to its limit."""
    forecast = _forecast(rate=8 / 0.018)
    assert forecast.ample_s == math.inf
    limit = forecast.row_limit(1000, running_rows)
    waiting = _waiting(*(_due_in(0.001) for _ in range(limit - 1)))
    running = [Batch(requests=[], rows=running_rows, started_at=NOW)]
    assert not _comes_too_late(forecast, _due_in(forecast.ample_s), waiting, running)


def test_the_rate_is_what_is_taken_while_something_is_left():
    """Ten rows every half second; whose worker took them does not matter."""
    drain = DrainRate()
    for number in range(4):
        drain.taken(10, 0.5 * number, left=1)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_idle_time_does_not_count():
    """A queue that was taken empty says nothing about how fast it could have been."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(5, 0.5, left=0)
    drain.taken(1, 100.0, left=0)
    drain.taken(1, 200.0, left=0)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_the_rate_follows_what_happened_lately():
    """After a hundred slow batches the fast ones before them count little."""
    drain = DrainRate()
    for number in range(100):
        drain.taken(10, 0.01 * number, left=1)
    for number in range(100):
        drain.taken(10, 1.0 + number, left=1)
    assert drain.rows_per_s == pytest.approx(10.0, rel=0.02)


def test_a_batch_that_was_cut_off_does_not_count():
    """A minute in which nothing was taken was one request's doing."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(10, 0.5, left=5)
    drain.interrupted()
    drain.taken(10, 60.5, left=5)
    drain.taken(10, 61.0, left=5)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_nothing_is_known_before_the_first_batch():
    """There is no rate yet; the retry delay is then fixed."""
    assert DrainRate().rows_per_s is None
    assert _hint(1000, None) == 1.0


@pytest.mark.parametrize(
    ("rows", "rate", "hint"), [(100, 200.0, 0.5), (1, 1e6, 0.01), (10**6, 1.0, 30.0), (0, 5.0, 0.01), (100, 0.0, 1.0)]
)
def test_the_hint_is_how_long_the_queue_takes_within_bounds(rows, rate, hint):
    """Rows over rows per second, neither nothing nor forever."""
    assert _hint(rows, rate) == pytest.approx(hint)


@pytest.mark.parametrize(("rows", "rate", "hint"), [(100, 1000.0, 0.1), (100, 200.0, 0.25), (100, 10.0, 0.8)])
def test_a_hint_is_within_the_delay_limit_or_one_batch(rows, rate, hint):
    """A slow model has more waiting than the limit allows, and room for a batch with each one dispatched."""
    assert _hint(rows, rate, max_delay_s=0.25) == pytest.approx(hint)


def _hint(rows, rate, jitter=0.0, max_delay_s=0.0):
    forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=max_delay_s, jitter=lambda: jitter)
    forecast.drain.rows_per_s = rate
    return forecast.retry_after_s(rows)
