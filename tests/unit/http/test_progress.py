"""Clients that send or receive too slowly."""

from inferd.http.limits import Progress


def stalled_at(amounts: list[int]) -> int | None:
    """Return the second at which an amount, observed every second, grows by less than 10 a second for 5 s."""
    progress = Progress()
    return next((now for now, amount in enumerate(amounts) if progress.is_stalled(amount, now, 10.0, 5.0)), None)


def test_fast_enough() -> None:
    """Growth at the rate never stalls, in whatever steps within the time."""
    assert stalled_at([10 * n for n in range(100)]) is None
    assert stalled_at([40 * (n // 4) for n in range(100)]) is None


def test_too_slow() -> None:
    """Found after the time, also if a little comes every second."""
    assert stalled_at([0] * 100) == 5
    assert stalled_at([9 * n for n in range(100)]) == 5


def test_stalls_later() -> None:
    """The time starts when the amount stops growing."""
    assert stalled_at([100, 200, 300, *[300] * 50]) == 7


def test_reset() -> None:
    """Another request starts again."""
    progress = Progress()
    assert not progress.is_stalled(100, 0.0, 10.0, 5.0)
    progress.reset()
    assert not progress.is_stalled(0, 100.0, 10.0, 5.0)
    assert progress.is_stalled(0, 105.0, 10.0, 5.0)
