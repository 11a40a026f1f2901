"""One timer for the earliest deadline."""

import math

from inferd.batching.waiting import SLACK_S, Deadlines


def test_the_first_deadline_arms_a_timer_and_later_ones_do_not():
    """However many requests come, the timer that is armed serves them."""
    deadlines = Deadlines()
    assert deadlines.watch(10.0) == 10.0
    assert [deadlines.watch(10.0 + second) for second in range(100)] == [None] * 100


def test_an_earlier_deadline_arms_an_earlier_timer():
    """A request in a hurry is not noticed only at the next one's deadline."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    assert deadlines.watch(5.0) == 5.0
    assert deadlines.earliest == 5.0


def test_a_deadline_a_moment_earlier_is_left_to_the_armed_timer():
    """Ever so slightly earlier deadlines do not pile up timers."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    assert deadlines.watch(10.0 - SLACK_S / 2) is None


def test_no_deadline_needs_no_timer():
    """Infinity is never reached."""
    assert Deadlines().watch(math.inf) is None


def test_firing_arms_the_next_if_someone_still_waits():
    """After the look the timer is for the earliest of the others."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    deadlines.watch(12.0)
    deadlines.looked(12.0)
    assert deadlines.fired(10.0) == 12.0


def test_firing_with_nobody_left_arms_nothing():
    """An empty queue needs no timer."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    deadlines.looked(math.inf)
    assert deadlines.fired(10.0) is None


def test_an_outer_timer_that_is_soon_enough_is_used_again():
    """A later timer that is armed already is not doubled."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    deadlines.watch(5.0)
    deadlines.looked(10.0)
    assert deadlines.fired(5.0) is None


def test_looks_are_not_closer_together_than_the_slack():
    """Thousands of deadlines in a row do not mean thousands of walks along the queue."""
    deadlines = Deadlines()
    deadlines.watch(10.0)
    deadlines.looked(10.0001)
    assert deadlines.fired(10.0) == 10.0 + SLACK_S
