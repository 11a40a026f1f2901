"""One timer for the earliest deadline."""

import math

from inferd.batching.request import DispatchEffects
from inferd.batching.waiting import SLACK_S, Deadlines


def _watch(deadlines, deadline):
    """Return the time to arm a timer for, if one is needed."""
    effects = DispatchEffects()
    deadlines.watch(deadline, effects)
    return effects.timers_at.pop() if effects.timers_at else None


def _fired(deadlines, now):
    effects = DispatchEffects()
    deadlines.fired(now, effects)
    return effects.timers_at.pop() if effects.timers_at else None


def test_only_the_first_deadline_arms_a_timer():
    """The armed timer serves all later deadlines."""
    deadlines = Deadlines()
    assert _watch(deadlines, 10.0) == 10.0
    assert [_watch(deadlines, 10.0 + second) for second in range(100)] == [None] * 100


def test_earlier_deadline_arms_an_earlier_timer():
    """It does not wait for the timer of a later one."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    assert _watch(deadlines, 5.0) == 5.0
    assert deadlines.earliest == 5.0


def test_slightly_earlier_deadline_uses_the_armed_timer():
    """Slightly earlier deadlines do not accumulate timers."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    assert _watch(deadlines, 10.0 - SLACK_S / 2) is None


def test_no_deadline_needs_no_timer():
    """Infinity is never reached."""
    assert _watch(Deadlines(), math.inf) is None


def test_firing_arms_the_next_timer():
    """For the earliest of the remaining requests."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    _watch(deadlines, 12.0)
    deadlines.expired_removed(12.0)
    assert _fired(deadlines, 10.0) == 12.0


def test_firing_with_an_empty_queue_arms_no_timer():
    """An empty queue needs none."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    deadlines.expired_removed(math.inf)
    assert _fired(deadlines, 10.0) is None


def test_reuses_a_timer_that_is_soon_enough():
    """A later armed timer is not duplicated."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    _watch(deadlines, 5.0)
    deadlines.expired_removed(10.0)
    assert _fired(deadlines, 5.0) is None


def test_checks_are_at_least_the_slack_apart():
    """Thousands of close deadlines do not cause thousands of scans of the queue."""
    deadlines = Deadlines()
    _watch(deadlines, 10.0)
    deadlines.expired_removed(10.0001)
    assert _fired(deadlines, 10.0) == 10.0 + SLACK_S
