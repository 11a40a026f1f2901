"""Delivery of outcomes despite failing observers and receivers."""

import logging

import pytest

from inferd.batching.request import BatchTiming, InferenceResult, Reply, ReplyDispatcher
from inferd.errors import DeadlineExceededError, InferenceFailedError, OverloadedError, RunTooLongError
from tests.fakes import Caller, FakeClock, RecordingStats

_RESULT = InferenceResult({}, BatchTiming(started_at=0.0, stack_s=0.0, run_s=0.0, rows=1), queue_s=0.0)


class _Out:
    def __init__(self, stats=None):
        self.clock = FakeClock()
        self.stats = stats or RecordingStats()
        self.replies = ReplyDispatcher(clock=self.clock, stats=self.stats)


def test_rejection_is_counted_with_reason_and_rows():
    """Before the caller gets the error, so that it finds the rejection counted."""
    out = _Out()
    seen = []
    caller = Caller(rows=3, on_outcome=lambda _: seen.extend(out.stats.rejections))
    out.clock.advance(0.5)
    out.replies.fail(caller.request, OverloadedError("full", retry_after_s=1.0, reason="SHED"))
    assert seen == ["SHED"]
    assert out.stats.read().fail.ns == 500_000_000


def test_other_errors_are_not_counted_as_rejections():
    """An expired deadline is no overload."""
    out = _Out()
    out.replies.fail(Caller().request, DeadlineExceededError("late"))
    assert out.stats.rejections == []
    assert out.stats.read().fail.count == 1


@pytest.mark.parametrize(
    ("error", "count"), [(InferenceFailedError(), 1), (RunTooLongError("slow"), 1), (DeadlineExceededError("late"), 0)]
)
def test_failures_of_the_model_are_counted_apart(error, count):
    """From those for which it did not run."""
    out = _Out()
    out.replies.fail(Caller().request, error)
    assert out.stats.read().model_failures == count


def test_settled_request_is_not_counted_again():
    """It has had its one outcome."""
    out, caller = _Out(), Caller()
    caller.request.reply.withdraw()
    out.replies.fail(caller.request, OverloadedError("full", retry_after_s=1.0))
    assert (out.stats.rejections, out.stats.read().fail.count) == ([], 0)


def test_failing_observer_does_not_lose_the_answer(caplog):
    """The failure is logged, and the caller gets its error."""

    class Broken(RecordingStats):
        def failed(self, duration_s, overload_reason="", *, by_model=False):
            raise RuntimeError("metrics are down")

    caller = Caller()
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        _Out(Broken()).replies.fail(caller.request, OverloadedError("full", retry_after_s=1.0))
    assert isinstance(caller.error, OverloadedError)
    assert "metrics are down" in caplog.text


def test_failing_observer_does_not_block_admission(caplog):
    """It is called before anything is decided."""

    class Broken(RecordingStats):
        def offered(self, rows):
            raise RuntimeError("metrics are down")

    with caplog.at_level(logging.ERROR, "inferd.batching"):
        _Out(Broken()).replies.offered([Caller().request])
    assert "metrics are down" in caplog.text


@pytest.mark.parametrize("act", ["fail", "succeed", "admitted"])
def test_failing_receiver_is_logged(act, caplog):
    """The thread continues with the next request."""
    caller = Caller()

    def broken(*_):
        raise RuntimeError("the connection is in pieces")

    caller.request.reply = Reply(broken, broken)
    replies = _Out().replies
    with caplog.at_level(logging.ERROR, "inferd.batching"):
        {
            "fail": lambda: replies.fail(caller.request, InferenceFailedError()),
            "succeed": lambda: replies.succeed(caller.request, _RESULT),
            "admitted": lambda: replies.admitted(caller.request),
        }[act]()
    assert "in pieces" in caplog.text
