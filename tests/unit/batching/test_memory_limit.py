"""The most rows of a run where more were out of memory: remembered, and raised again after a while."""

import gc
import logging
import weakref

from inferd.batching.memory_limit import MemoryLimit
from tests.fakes import FakeClock, ManualPollThread


class _Limit:
    def __init__(self, most_rows=64):
        self.clock = FakeClock()
        self.alarm = ManualPollThread(self.clock)
        self.told = []
        self.limit = MemoryLimit(
            name="m", most_rows=most_rows, clock=self.clock, alarm=self.alarm, on_change=self.told.append
        )

    def pass_s(self, seconds):
        self.clock.advance(seconds)
        self.alarm.fire_due()


def test_smallest_size_that_worked_is_the_limit(caplog):
    """It is reported once, and logged with the remedy."""
    memory = _Limit()
    assert memory.limit.rows == 64
    with caplog.at_level(logging.WARNING, "inferd.batching"):
        memory.limit.learned(16)
    memory.limit.learned(16)
    memory.limit.learned(32)
    assert (memory.limit.rows, memory.told) == (16, [16])
    (line,) = caplog.messages
    assert "at most 16 rows at once" in line
    assert "batching.max_batch_size" in line


def test_more_rows_are_tried_after_a_while():
    """Twice as many each time, up to the largest batch; then nothing is due any more."""
    memory = _Limit()
    memory.limit.learned(16)
    memory.pass_s(59)
    assert memory.told == [16]
    memory.pass_s(1)
    assert memory.told == [16, 32]
    memory.pass_s(60)
    assert memory.told == [16, 32, 64]
    memory.pass_s(1e6)
    assert (memory.told, memory.alarm.armed) == ([16, 32, 64], [])


def test_trials_that_fail_become_rare():
    """Each costs a run: their delay doubles, up to six hours."""
    memory = _Limit()
    memory.limit.learned(16)
    delays = []
    for _ in range(12):
        delays.append(memory.alarm.armed[-1] - memory.clock())
        memory.pass_s(delays[-1])
        assert memory.limit.rows == 32
        memory.limit.learned(16)
    assert delays[:4] == [60, 120, 240, 480]
    assert delays[-1] == 6 * 3600


def test_lower_limit_puts_the_trial_off():
    """An alarm that was set for an earlier limit does nothing."""
    memory = _Limit()
    memory.limit.learned(16)
    memory.pass_s(50)
    memory.limit.learned(4)
    memory.pass_s(10)
    assert memory.limit.rows == 4
    memory.pass_s(50)
    assert memory.limit.rows == 8


def test_model_without_batches_has_no_limit_to_learn():
    """One row is the least."""
    memory = _Limit(most_rows=1)
    memory.limit.learned(1)
    assert (memory.told, memory.alarm.armed) == ([], [])


def test_alarm_keeps_nothing_of_an_unloaded_model():
    """It may be due after hours."""
    memory = _Limit()
    memory.limit.learned(16)
    limit = weakref.ref(memory.limit)
    del memory.limit
    gc.collect()
    assert limit() is None
    memory.pass_s(60.0)
    assert memory.alarm.armed == []
