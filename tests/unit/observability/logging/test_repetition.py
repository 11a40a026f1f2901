"""Suppression of repeated log lines."""

import logging

import pytest

from inferd.observability.logging.setup import RepetitionFilter


class Bench:
    """A filter with a manual clock and manual timers."""

    def __init__(self, limit=2):
        self.now = 100.0
        self.timers = []
        self.summaries = []
        self.filter = RepetitionFilter(
            limit,
            10.0,
            self.summaries.append,
            clock=lambda: self.now,
            call_later=self._call_later,
        )
        self.no_thread = False

    def _call_later(self, delay_s, callback):
        if self.no_thread:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        self.timers.append((delay_s, callback))

    def log(self, text="failed %d", *, level=logging.WARNING, name="inferd.x", times=1):
        records = [logging.LogRecord(name, level, "file", 1, text, (number,), None) for number in range(times)]
        return [self.filter.filter(record) for record in records].count(True)

    def end_interval(self):
        self.now += 10.0
        timers, self.timers = self.timers, []
        for _, callback in timers:
            callback()


def test_passes_first_records():
    """The others become one line at the end of the interval."""
    bench = Bench()
    bench.now = 100.0
    assert bench.log(times=1) == 1
    bench.now = 104.0
    assert bench.log(times=5) == 1
    assert [delay_s for delay_s, _ in bench.timers] == [6.0]
    assert bench.summaries == []
    bench.end_interval()
    (summary,) = bench.summaries
    assert (summary.getMessage(), summary.repeated, summary.levelno) == ("failed 4", 4, logging.WARNING)


def test_summary_comes_also_if_the_system_gives_no_thread():
    """A log call never fails its caller: the summary comes with a later line, or by a timer once there may be one."""
    bench = Bench()
    bench.no_thread = True
    assert bench.log(times=5) == 2
    bench.now += 10.0
    assert bench.log(times=1) == 0
    assert [summary.repeated for summary in bench.summaries] == [4]
    assert bench.log(times=5) == 2
    bench.no_thread = False
    assert bench.log(times=5) == 0
    bench.end_interval()
    assert [summary.repeated for summary in bench.summaries] == [4, 8]


def test_limit_applies_per_interval():
    """Whether or not anything was suppressed in the one before."""
    bench = Bench()
    assert bench.log(times=2) == 2
    bench.now += 10.0
    assert bench.log(times=2) == 2
    assert bench.log(times=2) == 0
    bench.end_interval()
    assert bench.log(times=2) == 2
    assert len(bench.summaries) == 1


@pytest.mark.parametrize("other", [{"text": "other %d"}, {"name": "inferd.y"}, {"level": logging.ERROR}])
def test_counts_kinds_separately(other):
    """By logger, level and text, not by arguments."""
    bench = Bench()
    assert bench.log(times=5) == 2
    assert bench.log(**other, times=5) == 2


def test_never_suppresses_info():
    """There is a line for each of a hundred models."""
    bench = Bench()
    assert bench.log(level=logging.INFO, times=100) == 100


def test_limit_of_zero_passes_all():
    """Nothing is counted."""
    bench = Bench(limit=0)
    assert bench.log(times=100) == 100
    assert bench.timers == []


def test_flush_summarizes_counts():
    """At the end of the process."""
    bench = Bench()
    bench.log(times=5)
    bench.filter.flush()
    bench.end_interval()
    assert [summary.repeated for summary in bench.summaries] == [3]


def test_summary_has_no_traceback():
    """The first records had it."""
    bench = Bench(limit=1)
    for _ in range(2):
        bench.filter.filter(logging.LogRecord("x", logging.ERROR, "file", 1, "failed", (), (ValueError, None, None)))
    bench.filter.flush()
    assert bench.summaries[0].exc_info is None


def test_bounds_number_of_kinds():
    """Records of further kinds pass."""
    bench = Bench()
    for number in range(300):
        bench.log(f"kind {number}")
    assert bench.log("kind 299", times=5) == 5
    bench.now += 10.0
    assert bench.log("kind 299", times=5) == 2
