"""Counting outcomes, and histograms."""

import pickle

import numpy as np
import pytest

from inferd.bench.histogram import Histogram
from inferd.bench.recorder import OK, Outcome, Recorder, Window


def _recorder(**fields):
    window = Window(start_s=0.0, warm_s=10.0, end_s=20.0)
    return Recorder(**{"window": window, "classes": 2, "objective_s": 0.1, "interval_s": 5.0} | fields)


def _end(recorder, intended_s, latency_s, status=OK, class_index=0, rows=1, **fields):
    recorder.begun()
    ended_s = intended_s + latency_s
    recorder.ended(
        Outcome(
            class_index=class_index,
            rows=rows,
            intended_s=intended_s,
            sent_s=intended_s,
            ended_s=ended_s,
            status=status,
            **fields,
        )
    )


def test_percentiles_are_those_of_the_samples():
    """Within the three digits that the histogram keeps."""
    samples = np.random.default_rng(0).lognormal(-4, 1, 5000)
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    ordered = np.sort(samples) * 1000
    for percentile, value in histogram.percentiles_ms().items():
        # Which of two neighbours a percentile between them is, is a matter of taste.
        index = int(percentile / 100 * len(ordered))
        assert ordered[index - 1] * 0.998 <= value <= ordered[min(index, len(ordered) - 1)] * 1.002, percentile
    assert histogram.mean_ms() == pytest.approx(samples.mean() * 1000, rel=0.001)
    assert histogram.max_ms() == pytest.approx(samples.max() * 1000, rel=0.001)


def test_histograms_survive_pickling_and_merge():
    """Workers send theirs; together they are as one."""
    parts = [Histogram(), Histogram(), Histogram()]
    for number in range(1, 101):
        parts[number % 2].record(number / 1000)
    merged = Histogram()
    for part in parts:
        merged.add(pickle.loads(pickle.dumps(part)))
    assert merged.count == 100
    assert merged.percentiles_ms((50.0, 100.0)) == pytest.approx({50.0: 50, 100.0: 100}, rel=0.001)


def test_empty_histogram_has_no_figures():
    """None rather than zero."""
    assert Histogram().percentiles_ms() == {}
    assert Histogram().mean_ms() is Histogram().max_ms() is None


def test_requests_belong_to_their_intended_time():
    """Those meant for the window count, whenever they end; throughput is of those that ended in it."""
    recorder = _recorder()
    _end(recorder, 9.0, 2.0)
    _end(recorder, 15.0, 1.0, rows=4)
    _end(recorder, 19.0, 2.0)
    _end(recorder, 20.0, 1.0)
    total = recorder.total()
    assert (total.requests, total.ok, total.rows) == (2, 2, 5)
    assert (total.completed, total.completed_rows) == (2, 5)


def test_classes_are_counted_apart():
    """By their index."""
    recorder = _recorder()
    _end(recorder, 15.0, 0.05)
    _end(recorder, 15.0, 0.05, ("UNAVAILABLE", ""), class_index=1)
    assert [tally.ok for tally in recorder.tallies] == [1, 0]
    assert recorder.tallies[1].statuses.counts == {("UNAVAILABLE", ""): 1}


def test_statuses_are_bounded():
    """A server that gives each failure its own reason does not fill the memory."""
    recorder = _recorder()
    for number in range(500):
        _end(recorder, 15.0, 0.05, ("UNAVAILABLE", f"R{number}"))
    statuses = recorder.total().statuses.counts
    assert len(statuses) == 51
    assert statuses["UNAVAILABLE", "OTHER"] == 450


def test_merged_recorders_count_as_one():
    """Of several workers, after pickling, also where one has seen less time."""
    one, two, three = _recorder(), _recorder(), _recorder()
    for recorder, moments in ((one, (12.0,)), (two, (12.0, 19.0)), (three, (12.0, 13.0, 14.0))):
        for moment in moments:
            _end(recorder, moment, 0.2)
    one.add([pickle.loads(pickle.dumps(other)) for other in (two, three)])
    assert one.total().requests == one.total().latency.count == 6
    assert [interval.ok for interval in one.intervals] == [0, 0, 5, 1]
    assert one.total().within_objective == 0


def test_recent_is_what_ended_since_the_last_look():
    """For the display."""
    recorder = _recorder()
    _end(recorder, 1.0, 0.05)
    assert recorder.take_recent().ok == 1
    _end(recorder, 2.0, 0.05, ("UNAVAILABLE", ""))
    recent = recorder.take_recent()
    assert (recent.ok, recent.failed) == (0, 1)


def test_latency_counts_from_the_earlier_time():
    """A request that was sent too early was open for longer, and none is shorter for having been sent late."""
    recorder = _recorder()
    for sent_s, ended_s in ((14.5, 15.5), (15.5, 16.0)):
        recorder.begun()
        recorder.ended(
            Outcome(class_index=0, rows=1, intended_s=15.0, sent_s=sent_s, ended_s=ended_s, status=OK),
        )
    assert recorder.total().latency.percentiles_ms((1.0, 100.0)) == pytest.approx({1.0: 1000, 100.0: 1000}, rel=0.001)
    assert recorder.total().latency_from_send.max_ms() == pytest.approx(1000, rel=0.001)
    assert recorder.send_lag.max_ms() == pytest.approx(500, rel=0.001)
