"""Intervals between readings, percentiles, and the series that are made of them."""

import numpy as np
import pytest

from inferd.observability.metrics.families import ModelSample
from inferd.observability.metrics.gpu import GpuSample
from inferd.observability.metrics.histogram import DURATION_BOUNDS_S, ROWS_BOUNDS
from inferd.observability.metrics.models import Activity
from inferd.page.history import ANSWERED, FAILED, WAITING, Gauges, History, Reading
from inferd.page.sampler import CounterSources, read_counters
from inferd.page.series import model_series, percentile, recent_figures, server_series
from tests.unit.observability.metrics.samples import LANGUAGE_MODEL

_BUCKETS = len(DURATION_BOUNDS_S) + 1


def _counters(answered: int = 0, failed: int = 0, rejected: int = 0, rows: int = 0, runs: int = 0, ms: float = 4.0):
    latency = [0] * _BUCKETS
    latency[next(index for index, bound in enumerate(DURATION_BOUNDS_S) if bound >= ms / 1000)] = answered
    return (answered, failed, rejected, rows, runs, *latency, *[0] * (len(ROWS_BOUNDS) + 1))


def _reading(at: float, waiting: dict[str, int] | None = None, cpu_s: float = 0.0, gpus=(), **models) -> Reading:
    """``models`` are counters by name, with two underscores before the version."""
    return Reading(
        at=at,
        time=1_700_000_000 + at,
        counters={tuple(name.split("__")): counters for name, counters in models.items()},
        waiting_rows=waiting or {},
        gauges=Gauges(
            cpu_s=cpu_s, resident_bytes=1000, model_bytes=100, request_bytes=10, open_calls=3, gpus=tuple(gpus)
        ),
    )


def _history(*readings: Reading, length: int = 10) -> History:
    history = History(length)
    for reading in readings:
        history.add(reading)
    return history


def test_intervals_are_what_happened_between_two_readings():
    """What was counted before the first one is not in it."""
    history = _history(
        _reading(10, digits__1=_counters(answered=100)), _reading(12, digits__1=_counters(answered=130), cpu_s=3.0)
    )
    (interval,) = history.since(0)
    assert (interval.number, interval.time, interval.seconds, interval.cores) == (1, 1_700_000_012, 2, 1.5)
    assert interval.models["digits"][ANSWERED] == interval.total[ANSWERED] == 30


def test_versions_of_a_model_are_added_up():
    """A new version began with zeros, and one that is gone counts no further."""
    history = _history(
        _reading(0, digits__1=_counters(answered=5)),
        _reading(2, digits__1=_counters(answered=7), digits__2=_counters(answered=40)),
        _reading(4, digits__2=_counters(answered=41)),
    )
    assert [interval.models["digits"][ANSWERED] for interval in history.since(0)] == [42, 1]


def test_counters_that_begin_again_are_no_negative_numbers():
    """As those of a version that was unloaded long ago."""
    history = _history(_reading(0, m__1=_counters(answered=50)), _reading(2, m__1=_counters(answered=3, failed=2)))
    figures = history.since(0)[0].models["m"]
    assert (figures[ANSWERED], figures[FAILED]) == (0, 2)


def test_models_without_requests_take_no_place():
    """Waiting rows are activity too."""
    idle = _counters(answered=9)
    history = _history(
        _reading(0, a__1=idle, b__1=idle, c__1=idle),
        _reading(2, {"b": 4}, a__1=idle, b__1=idle, c__1=_counters(answered=10)),
    )
    (interval,) = history.since(0)
    assert set(interval.models) == {"b", "c"}
    assert interval.models["b"][WAITING] == 4


def test_keeps_the_last_intervals_and_returns_those_after_a_number():
    """A number that is not known, as after a restart, returns all."""
    history = _history(*(_reading(2 * index) for index in range(8)), length=5)
    assert [each.number for each in history.since(0)] == [3, 4, 5, 6, 7]
    assert [each.number for each in history.since(5)] == [6, 7]
    assert history.since(7) == []
    assert len(history.since(99)) == 5
    assert History(5).since(0) == []


def test_callers_see_the_sum_of_their_models_only():
    """Over the models that they may see; those of others are not in any number."""
    history = _history(
        _reading(0),
        _reading(2, {"a": 2, "b": 5}, a__1=_counters(answered=4), b__1=_counters(answered=60)),
    )
    (interval,) = history.since(0)
    assert interval.figures({"a"}.__contains__)[[ANSWERED, WAITING]].tolist() == [4, 2]
    assert interval.figures(lambda _: False)[ANSWERED] == 0
    assert interval.figures(None)[[ANSWERED, WAITING]].tolist() == [64, 7]
    assert set(recent_figures([interval], {"a"}.__contains__)) == {"a"}


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0, 0], 0.5, None),
        ([10, 0, 0, 0], 0.5, 0.5),
        ([0, 10, 0, 0], 0.5, 1.5),
        ([5, 0, 5, 0], 0.9, 3.6),
        ([0, 0, 0, 3], 0.5, 4.0),
        ([1, 1, 1, 1], 1.0, 4.0),
    ],
)
def test_percentiles_lie_within_their_bucket(counts, share, expected):
    """In proportion; above the last bound it is that bound."""
    assert percentile(counts, (1.0, 2.0, 4.0), share) == (None if expected is None else pytest.approx(expected))


def test_series_have_rates_percentiles_and_means():
    """Durations in ms, and no number where nothing was measured."""
    history = _history(
        _reading(0),
        _reading(2, {"m": 6}, m__1=_counters(answered=20, failed=10, rejected=8, rows=60, runs=15)),
        _reading(4, m__1=_counters(answered=20, failed=10, rejected=8, rows=60, runs=15)),
    )
    series = server_series(history.since(0), None)
    assert series["times"] == [1_700_000_002, 1_700_000_004]
    assert (series["answered"], series["rejected"], series["failed"]) == ([10, 0], [4, 0], [1, 0])
    assert (series["batch_rows"], series["waiting_rows"]) == ([4, None], [6, 0])
    # In the bucket from 2.5 to 5 ms.
    assert series["p50_ms"] == [pytest.approx(3.75), None]
    assert (series["open_calls"], series["resident_bytes"], series["gpus"]) == ([3, 3], [1000, 1000], [])
    assert model_series(history.since(0), "m")["answered"] == [10, 0]
    assert model_series(history.since(0), "other")["answered"] == [0, 0]
    assert {len(values) for name, values in series.items() if name != "gpus"} == {2}
    assert server_series([], None) == {name: [] for name in series}


def test_series_of_gpus_have_gaps_where_a_device_was_missing():
    """It may fall off the bus and come back; one that reports no utilization has none."""
    one = GpuSample(index="0", uuid="GPU-0", utilization=0.5, used_bytes=10, total_bytes=40)
    mig = GpuSample(index="1", uuid="GPU-1", utilization=None, used_bytes=20, total_bytes=40)
    history = _history(_reading(0), _reading(2, gpus=[one]), _reading(4, gpus=[one, mig]))
    first, second = server_series(history.since(0), None)["gpus"]
    assert first == {"index": "0", "total_bytes": 40, "utilization": [0.5, 0.5], "used_bytes": [10, 10]}
    assert (second["utilization"], second["used_bytes"]) == ([None, None], [None, 20])


def test_recent_figures_are_averages_over_the_time():
    """Not over intervals, which may differ in length."""
    history = _history(
        _reading(0), _reading(1, {"m": 4}, m__1=_counters(answered=30)), _reading(4, m__1=_counters(answered=90))
    )
    recent = recent_figures(history.since(0), None)
    assert (recent["m"]["answered"], recent["m"]["waiting_rows"]) == (22.5, 2)


def test_readings_join_the_sources():
    """Counters of a version, its calls by duration, and rows or sequences that wait for a model in all its versions."""
    calls = tuple(range(_BUCKETS))
    batches = (1,) * (len(ROWS_BOUNDS) + 1)
    activity = Activity(answered=1, failed=2, rejected=3, rows=4, runs=5, batches=batches)
    usage = type("Usage", (), {"held_bytes": 7})()
    reading = read_counters(
        CounterSources(
            activity=lambda: {("m", "1"): activity, ("m", "2"): activity},
            answered=lambda: {("m", "1"): calls},
            models=lambda: (
                [
                    ModelSample(model="m", version=version, state="ready", queue_rows=3, memory_bytes=50)
                    for version in ("1", "2")
                ]
                + [LANGUAGE_MODEL]
            ),
            cpu_s=lambda: 1.5,
            resident_bytes=lambda: 1000,
            usage=lambda: usage,
            open_calls=lambda: 9,
            gpus=list,
        ),
        at=4.0,
        wall_time=5.0,
    )
    assert reading.counters["m", "1"] == (1, 2, 3, 4, 5, *calls, *batches)
    assert reading.counters["m", "2"] == (1, 2, 3, 4, 5, *[0] * _BUCKETS, *batches)
    assert reading.waiting_rows == {"m": 6, "lm": 2}
    assert (reading.at, reading.time) == (4.0, 5.0)
    assert (reading.gauges.model_bytes, reading.gauges.request_bytes, reading.gauges.open_calls) == (100, 7, 9)


def test_intervals_take_little_memory():
    """Numbers of 4 bytes each, which the garbage collector does not follow."""
    figures = _history(_reading(0), _reading(2, m__1=_counters(answered=1))).since(0)[0].models["m"]
    assert figures.dtype == np.float32
    assert figures.nbytes < 200
