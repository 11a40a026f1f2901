"""The time limit of a run, with the alarm's thread and the engine's in every order."""

import pytest

from inferd.generation import run_limit
from inferd.generation.run_limit import RunLimit


class _Limited:
    """A `RunLimit` of a second, with a clock and an alarm that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.run = 0
        self.stopped: list[int] = []
        self.reports: list[bool] = []
        self._alarms: list[tuple[float, object]] = []
        self.limit = RunLimit(
            name="m",
            limit_s=1.0,
            clock=lambda: self.now,
            alarm=self,
            stop_run=lambda: self.stopped.append(self.run),
            on_stopped=lambda _sequences: None,
            on_stuck=self.reports.append,
        )

    def call_at(self, when, call):
        self._alarms.append((when, call))

    def begin(self):
        self.run += 1
        self.limit.begin(())

    def advance(self, seconds):
        self.now += seconds
        due = [call for when, call in self._alarms if when <= self.now]
        self._alarms = [alarm for alarm in self._alarms if alarm[0] > self.now]
        for call in due:
            call()


def test_ends_the_run_at_its_limit_and_not_the_next_one(monkeypatch: pytest.MonkeyPatch):
    """The next run begins while the alarm's thread still reports that the first one was stopped."""
    limited = _Limited()

    def next_run(*_args):
        assert limited.limit.end()
        limited.begin()

    limited.begin()
    with monkeypatch.context() as patched:
        patched.setattr(run_limit._logger, "warning", next_run)
        limited.advance(1.0)
    assert limited.stopped == [1]
    assert not limited.limit.end()


def test_reports_last_that_a_stuck_run_has_ended(monkeypatch: pytest.MonkeyPatch):
    """If the run ends just as it is reported as stuck, the last report is that it is not."""
    limited = _Limited()
    limited.begin()
    limited.advance(1.0)
    with monkeypatch.context() as patched:
        patched.setattr(run_limit._logger, "error", lambda *_args: limited.limit.end())
        limited.advance(1.0)
    assert limited.reports[-1] is False
    assert limited.limit.end() is False
