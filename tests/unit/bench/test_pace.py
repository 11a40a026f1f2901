"""The times of an open loop on virtual time, with requests that take as long to be sent as a test says."""

import asyncio

import pytest

from inferd.bench.attempt import Attempt
from inferd.bench.pace import Pace
from inferd.bench.traffic import Prepared
from tests.unit.bench.virtual_time import run

_REQUEST = Prepared(0, 1, b"request", 1.0)


def _lags(dues_s, sending_s):
    """Return how late requests are that are sent ``sending_s`` after their wait ends."""

    async def main():
        clock = asyncio.get_running_loop().time
        pace, lags = Pace(clock), []
        for due_s in dues_s:
            await pace.wait(due_s)
            attempt = Attempt(_REQUEST, clock())
            pace.begun(attempt, due_s)
            await asyncio.sleep(sending_s)
            attempt.sent(clock())
            lags.append(clock() - due_s)
        return lags

    return run(main())


def test_requests_start_earlier_by_what_sending_takes():
    """The first is as late as sending takes; later ones are on time, and no earlier."""
    lags = _lags([1 + number / 100 for number in range(100)], 0.0004)
    assert lags[0] == pytest.approx(0.0004)
    assert all(abs(lag) <= 0.00003 for lag in lags[30:])


def test_nothing_starts_much_too_early():
    """However long sending takes."""
    assert _lags([1 + number for number in range(200)], 0.5)[-1] == pytest.approx(0.499)


def test_late_requests_teach_nothing():
    """They did not wait for their time, so that starting earlier would not help them."""
    lags = _lags([0.0] * 100 + [10.0], 0.01)
    assert lags[-1] == pytest.approx(0.01)
