"""How many requests may be on their way to a server."""

import pytest

from inferd.batch.window import Window


def test_answers_widen_it():
    """By about one for each round, up to the most."""
    window = Window(4)
    for _ in range(20):
        window.sent()
        window.answered()
    assert window.limit == 4


def test_full_window_waits_for_an_answer():
    """However long that takes."""
    window = Window(4)
    window.sent()
    assert window.wait_s(0.0) == 0.0
    window.sent()
    assert window.wait_s(0.0) is None


def test_refusal_halves_it_and_waits_for_the_hint():
    """Refusals of requests that were sent before it was heard count once."""
    window = Window(8, first=8)
    for _ in range(8):
        window.sent()
    window.refused(10.0, 9.0, 2.5)
    for _ in range(7):
        window.refused(10.1, 9.0, 2.5)
    assert (window.limit, window.in_flight) == (4, 0)
    assert window.wait_s(10.5) == 2.0
    assert window.wait_s(13.0) == 0.0


def test_waits_grow_without_hints():
    """Until something is answered."""
    window = Window(8)
    waits = []
    for now in (0.0, 128.0, 256.0):
        window.sent()
        window.refused(now, now, None)
        waits.append(window.wait_s(now))
    assert waits == pytest.approx([0.1, 0.2, 0.4])
    window.sent()
    window.answered()
    window.sent()
    window.refused(512.0, 512.0, None)
    assert window.wait_s(512.0) == pytest.approx(0.1)


def test_never_below_one():
    """So that a job always goes on."""
    window = Window(8)
    for now in range(1, 10):
        window.sent()
        window.refused(float(now), float(now), 0.0)
    assert window.limit == 1
    assert window.wait_s(20.0) == 0.0
