"""Predicted ends of requests, and the resulting limits and rejections."""

import math

import pytest

from inferd.batching.cost_model import CostModel
from inferd.batching.forecast import DrainRate, Forecast
from inferd.batching.request import Batch
from inferd.batching.waiting import WaitingRequests
from tests.fakes import Caller

NOW = 100.0


def _forecast(cost=None, *, max_rows=8, workers=1, max_delay_s=0.25, rate=None, runs=(1, 8), fixed_s=0.01, row_s=0.001):
    """A forecast for a model with exact costs that has run all of ``runs`` recently."""
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
        (0.03, 0.25, 100),
        (0.1, 0.25, 250),
        (0.1, 1.0, 300),
        (0.01, 0.05, 50),
        (0.01, 0.001, 16),
        (0.1, 0.0, 700),
        (0.1, 10.0, 300),
        (1.0, 10.0, 700),
    ],
)
def test_queue_limit_is_what_drains_in_three_batches_or_100_ms(full_s, max_delay_s, limit):
    """At most the configured delay; at least two batches per worker, and at most the bound."""
    forecast = _forecast(fixed_s=full_s, row_s=0.0, max_delay_s=max_delay_s, rate=1000.0)
    assert forecast.row_limit(700, 8) == limit


def test_queue_has_no_limit_without_data():
    """After that, the cost of a full batch stands for the drain rate until the rate is measured."""
    assert _forecast(CostModel()).row_limit(700, 8) == 700
    assert _forecast(fixed_s=0.04, row_s=0.0, workers=2).row_limit(700, 8) == int(0.1 * 2 * 8 / 0.04)


@pytest.mark.parametrize(("timeout_s", "is_late"), [(0.0105, True), (0.0115, False)])
def test_single_request_takes_its_run_time(timeout_s, is_late):
    """A run of one row takes 11 ms."""
    assert _comes_too_late(_forecast(), _due_in(timeout_s)) is is_late


def test_large_request_takes_the_time_of_all_its_chunks():
    """20 rows are two full batches of 18 ms, and one of 4 rows in between the known sizes."""
    forecast = _forecast()
    assert _comes_too_late(forecast, _due_in(0.049, rows=20))
    assert not _comes_too_late(forecast, _due_in(0.051, rows=20))


@pytest.mark.parametrize(("timeout_s", "is_late"), [(0.070, True), (0.074, False)])
def test_rows_ahead_delay_a_request(timeout_s, is_late):
    """16 rows at 444 rows/s take 36 ms, its own batch 18 ms, and another 18 ms as batches are not always full."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.05) for _ in range(16)))
    assert _comes_too_late(forecast, _due_in(timeout_s), waiting) is is_late


@pytest.mark.parametrize(("ahead", "needed_s"), [(0, 0.011), (2, 0.0175), (4, 0.024), (7, 0.03375), (8, 0.054)])
def test_margin_grows_with_rows_ahead_up_to_a_batch(ahead, needed_s):
    """The fewer rows are queued, the more likely all of them run in the next batch."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.001) for _ in range(ahead)))
    assert _comes_too_late(forecast, _due_in(needed_s - 0.0001), waiting)
    assert not _comes_too_late(forecast, _due_in(needed_s + 0.0001), waiting)


def test_only_requests_served_before_count():
    """Lower priorities and later deadlines do not delay a request."""
    forecast = _forecast(rate=8 / 0.018)
    others = [_due_in(0.5) for _ in range(16)] + [_due_in(0.01, priority=2) for _ in range(16)]
    assert not _comes_too_late(forecast, _due_in(0.05), _waiting(*others))
    assert _comes_too_late(forecast, _due_in(0.05, priority=3), _waiting(*others))


def test_rejects_request_that_would_make_others_late():
    """Those behind it keep the time they were admitted for."""
    forecast = _forecast(rate=8 / 0.018)
    waiting = _waiting(*(_due_in(0.057) for _ in range(8)))
    assert not _comes_too_late(forecast, _due_in(0.05, rows=1), waiting)
    assert _comes_too_late(forecast, _due_in(0.05, rows=8), waiting)


def test_running_batches_delay_the_start_only_if_no_worker_is_free():
    """A batch being answered and one outside the queue occupy no worker."""
    running = Batch(requests=[], rows=8, started_at=NOW - 0.008)
    assert _comes_too_late(_forecast(), _due_in(0.020), running=[running])
    assert not _comes_too_late(_forecast(), _due_in(0.022), running=[running])
    assert not _comes_too_late(_forecast(workers=2), _due_in(0.012), running=[running])
    running.answering = True
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[running])
    outside = Batch(requests=[], rows=8, started_at=NOW, outside_queue=True)
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[outside])


def test_running_request_in_chunks_occupies_a_worker_for_all_of_them():
    """80 rows are ten full batches of 18 ms."""
    running = Batch(requests=[], rows=80, started_at=NOW)
    assert _comes_too_late(_forecast(), _due_in(0.190), running=[running])
    assert not _comes_too_late(_forecast(), _due_in(0.192), running=[running])


def test_overdue_run_is_predicted_to_end_now():
    """The worker may be free at any moment."""
    running = Batch(requests=[], rows=8, started_at=NOW - 5.0)
    assert not _comes_too_late(_forecast(), _due_in(0.012), running=[running])


def test_time_from_run_to_answers_counts():
    """Averaged over batches."""
    forecast = _forecast()
    for _ in range(100):
        forecast.ran(Batch(requests=[], rows=8, started_at=NOW), 0.018, NOW + 0.023)
    assert forecast.batch_s(8) == pytest.approx(0.023, rel=0.01)
    assert _comes_too_late(forecast, _due_in(0.0155))
    assert not _comes_too_late(forecast, _due_in(0.0165))


def test_rejects_by_the_95th_percentile():
    """With noise, a request has to meet its deadline in 19 of 20 runs."""
    forecast = _forecast()
    forecast.cost.factor = 2.0
    assert _comes_too_late(forecast, _due_in(0.021))
    assert not _comes_too_late(forecast, _due_in(0.023))


def test_rejects_nothing_without_data():
    """Without a run, from warm-up seeds alone, or for a size far from all that have run."""
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
def test_rejects_nothing_by_old_predictions(seconds):
    """A model that became fast again would never run, and its prediction never be corrected."""
    forecast, now = _forecast(), NOW + seconds
    request = Caller(deadline=now + 0.0001).request
    assert not _comes_too_late(forecast, request, now=now)
    assert not forecast.cannot_finish(request, 1, now)


def test_admitted_requests_correct_wrong_predictions():
    """Sequential requests with 5 ms left, for a model that has become fast: one a second is admitted, then all."""
    forecast, now, admitted = _forecast(), NOW, []
    for number in range(1000):
        now += 0.01
        request = Caller(deadline=now + 0.005).request
        if not _comes_too_late(forecast, request, now=now):
            admitted.append(number)
            forecast.cost.ran(1, 0.001, now=now)
    assert 0 < admitted[0] < 120
    assert set(range(700, 1000)) <= set(admitted)


def test_request_cannot_finish_if_its_own_run_is_too_long():
    """By the average run, as an admitted request may be lucky."""
    forecast = _forecast()
    forecast.cost.factor = 2.0
    assert forecast.cannot_finish(_due_in(0.0105), 1, NOW)
    assert not forecast.cannot_finish(_due_in(0.0115), 1, NOW)


def test_under_load_a_request_has_to_fit_half_a_batch():
    """A smaller batch for it would make all others later: 4 rows take 14 ms."""
    forecast = _forecast()
    assert forecast.cannot_finish(_due_in(0.0135), 8, NOW)
    assert not forecast.cannot_finish(_due_in(0.0135), 7, NOW)
    assert not forecast.cannot_finish(_due_in(0.0145), 8, NOW)


def test_request_without_deadline_is_never_late():
    """Whatever is queued."""
    forecast = _forecast(rate=0.001)
    assert not _comes_too_late(forecast, Caller().request, _waiting(*(_due_in(0.05) for _ in range(100))))
    assert not forecast.cannot_finish(Caller().request, 100, NOW)


def test_hint_is_the_drain_time_with_jitter():
    """From half of it to all of it, so that clients rejected together do not return together."""
    for jitter, hint in ((0.0, 0.2), (0.5, 0.15), (1.0, 0.1)):
        forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=0.25, jitter=lambda jitter=jitter: jitter)
        forecast.drain.rows_per_s = 500.0
        assert forecast.retry_after_s(100) == pytest.approx(hint)


def test_hints_differ_by_default():
    """The default source is random."""
    forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=0.0)
    forecast.drain.rows_per_s = 500.0
    hints = {forecast.retry_after_s(500) for _ in range(50)}
    assert len(hints) > 1
    assert all(0.5 <= hint <= 1.0 for hint in hints)


@pytest.mark.parametrize("running_rows", [1, 8, 80])
def test_distant_deadlines_need_no_forecast(running_rows):
    """A request due after `ample_s` is in time even at the end of a queue at its limit."""
    forecast = _forecast(rate=8 / 0.018)
    assert forecast.ample_s == math.inf
    limit = forecast.row_limit(1000, running_rows)
    waiting = _waiting(*(_due_in(0.001) for _ in range(limit - 1)))
    running = [Batch(requests=[], rows=running_rows, started_at=NOW)]
    assert not _comes_too_late(forecast, _due_in(forecast.ample_s), waiting, running)


def test_no_time_is_ample_after_a_batch_that_was_answered_late():
    """Requests that arrive before the next dispatch get a forecast."""
    forecast, waiting = _forecast(), _waiting()
    forecast.row_limit(1000, 8)
    before_s = forecast.ample_s
    forecast.ran(Batch(requests=[], rows=8, started_at=NOW), 0.018, NOW + 5.018)
    assert forecast.ample_s == math.inf
    assert _comes_too_late(forecast, _due_in(before_s), waiting)


def test_drain_rate_counts_rows_taken_while_some_are_left():
    """Ten rows every half second, whichever worker takes them."""
    drain = DrainRate()
    for number in range(4):
        drain.taken(10, 0.5 * number, left=1)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_drain_rate_excludes_idle_time():
    """A queue that was emptied does not show how fast it could have drained."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(5, 0.5, left=0)
    drain.taken(1, 100.0, left=0)
    drain.taken(1, 200.0, left=0)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_drain_rate_follows_recent_batches():
    """After a hundred slow batches, the fast ones before them count little."""
    drain = DrainRate()
    for number in range(100):
        drain.taken(10, 0.01 * number, left=1)
    for number in range(100):
        drain.taken(10, 1.0 + number, left=1)
    assert drain.rows_per_s == pytest.approx(10.0, rel=0.02)


def test_drain_rate_excludes_interrupted_batches():
    """One request caused the minute in which nothing was taken."""
    drain = DrainRate()
    drain.taken(10, 0.0, left=5)
    drain.taken(10, 0.5, left=5)
    drain.interrupted()
    drain.taken(10, 60.5, left=5)
    drain.taken(10, 61.0, left=5)
    assert drain.rows_per_s == pytest.approx(20.0)


def test_no_drain_rate_before_the_first_batch():
    """The retry delay is then fixed."""
    assert DrainRate().rows_per_s is None
    assert _hint(1000, None) == 1.0


@pytest.mark.parametrize(
    ("rows", "rate", "hint"), [(100, 200.0, 0.5), (1, 1e6, 0.01), (10**6, 1.0, 30.0), (0, 5.0, 0.01), (100, 0.0, 1.0)]
)
def test_hint_is_bounded_drain_time(rows, rate, hint):
    """Rows over rows per second, within a minimum and a maximum."""
    assert _hint(rows, rate) == pytest.approx(hint)


@pytest.mark.parametrize(("rows", "rate", "hint"), [(100, 1000.0, 0.1), (100, 200.0, 0.25), (100, 10.0, 0.8)])
def test_hint_is_within_the_delay_limit_or_one_batch(rows, rate, hint):
    """A slow model has more queued than the limit allows, and room for a batch after each dispatch."""
    assert _hint(rows, rate, max_delay_s=0.25) == pytest.approx(hint)


def _hint(rows, rate, jitter=0.0, max_delay_s=0.0):
    forecast = Forecast(CostModel(), max_rows=8, workers=1, max_delay_s=max_delay_s, jitter=lambda: jitter)
    forecast.drain.rows_per_s = rate
    return forecast.retry_after_s(rows)


def test_full_batches_are_smaller_while_there_is_no_memory_for_more():
    """What may wait and how long a batch takes follow."""
    forecast = _forecast(max_rows=8, workers=2)
    assert forecast.least_rows == 32
    long_s = forecast.longest_s
    forecast.limit_rows(1)
    assert forecast.least_rows == 4
    assert forecast.longest_s < long_s
