"""Times in which the server answered nothing for a reason other than load."""

import pytest

from inferd.bench.outages import find_outage
from inferd.bench.recorder import OK, Outcome, Recorder, Window

_GONE = ("UNAVAILABLE", "")
_UNKNOWN = ("NOT_FOUND", "MODEL_NOT_FOUND")
_FULL = ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
_LATE = ("DEADLINE_EXCEEDED", "")


def _recorder(*statuses):
    """One request each half second, from the start of a warm-up of one second on."""
    recorder = Recorder(window=Window(start_s=5.0, warm_s=6.0, end_s=10.0), classes=1, objective_s=None, interval_s=0.5)
    for number, status in enumerate(statuses):
        at_s = 5.1 + number / 2
        recorder.begun()
        outcome = {"intended_s": at_s, "sent_s": at_s, "ended_s": at_s + 0.01, "status": status}
        recorder.ended(Outcome(class_index=0, rows=1, message=f"text of {status[0]}", **outcome))
    return recorder


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        ([OK] * 4 + [_GONE] * 2 + [OK] * 2, "from 2.0 s to 3.0 s: UNAVAILABLE: text of UNAVAILABLE"),
        ([OK] * 4 + [_UNKNOWN] * 4, "from 2.0 s to 4.0 s: NOT_FOUND MODEL_NOT_FOUND: text of NOT_FOUND"),
        ([OK, OK, _GONE], "from 1.0 s to 1.5 s: UNAVAILABLE: text of UNAVAILABLE"),
    ],
)
def test_only_failures_that_are_not_of_load(statuses, text):
    """For a second, or for all that was measured: since when and until when, and the error."""
    assert find_outage(_recorder(*statuses), "").text() == f"the server answered nothing {text}"


@pytest.mark.parametrize(
    "statuses",
    [
        [OK] * 8,
        [OK, OK, OK, _GONE, OK, _GONE, OK],
        [OK, OK] + [_FULL] * 4 + [_LATE] * 2,
        [_GONE, _GONE] + [OK] * 4,
        [],
    ],
)
def test_load_and_single_failures_are_no_outage(statuses):
    """Nor is what happens in the warm-up, and has ended with it."""
    assert find_outage(_recorder(*statuses), "") is None


@pytest.mark.parametrize("after", [[_GONE] * 4, [_LATE] * 4, []])
def test_server_that_is_away_after_the_step(after):
    """Since its last answer, however its last requests ended: refused, or by their deadlines."""
    outage = find_outage(_recorder(*[OK] * 4, *after), "UNAVAILABLE: refused")
    assert outage.text() == "the server answered nothing from 2.0 s on: UNAVAILABLE: refused"


def test_outages_of_all_workers_together():
    """Where one worker gets answers the server is there."""
    away = _recorder(*[OK] * 2, *[_GONE] * 6)
    away.add([_recorder(*[OK] * 6, *[_GONE] * 2)])
    assert find_outage(away, "").from_s == 3.0
