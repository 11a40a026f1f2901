"""Readiness and liveness by the lag of the poll thread."""

import logging

import pytest

from inferd.observability.poll_watch import PollWatch


class Watched:
    """A watch, its lag, and the number of its callbacks."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        self.changes = 0
        self.watch = PollWatch(lambda: self.lag_s, ready_max_lag_s=5, live_max_lag_s=30, on_change=self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def at(self, lag_s: float) -> tuple[str, str]:
        self.lag_s = lag_s
        self.watch.check()
        return self.watch.why_not_ready(), self.watch.why_not_alive()


def test_not_ready_and_not_alive_beyond_their_limits() -> None:
    """The reason has the lag and the setting; both recover."""
    watched = Watched()
    assert watched.at(4.99) == ("", "")
    assert watched.at(5) == ("the poll thread is 5.0 s behind, server.ready_max_lag_s is 5", "")
    assert watched.at(31.25) == (
        "the poll thread is 31.2 s behind, server.ready_max_lag_s is 5",
        "the poll thread is 31.2 s behind, server.live_max_lag_s is 30",
    )
    assert watched.at(0.1) == ("", "")


def test_reports_each_change_once(caplog: pytest.LogCaptureFixture) -> None:
    """By callback, and in the log."""
    watched = Watched()
    with caplog.at_level(logging.WARNING):
        for lag_s in (0, 6, 7, 40, 50, 0, 0, 40):
            watched.at(lag_s)
    assert watched.changes == 4
    told = [record.getMessage().partition(":")[0] for record in caplog.records]
    assert told == ["not ready", "not alive", "poll thread recovered, ready again", "not alive"]


def test_stop_without_start() -> None:
    """No effect."""
    Watched().watch.stop()
