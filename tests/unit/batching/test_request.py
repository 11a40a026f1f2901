"""The handle that settles a request exactly once."""

import threading
import weakref

import pytest

from inferd.batching.request import Reply
from inferd.errors import InferenceFailedError
from tests.fakes import Caller


def test_only_the_first_outcome_is_delivered():
    """The second call returns False."""
    caller = Caller()
    first, second = InferenceFailedError(), InferenceFailedError()
    assert caller.request.reply.deliver(first)
    assert not caller.request.reply.deliver(second)
    assert not caller.request.reply.withdraw()
    assert caller.outcome is first


def test_withdrawn_request_gets_no_outcome():
    """After a cancel an answer is discarded."""
    caller = Caller()
    assert caller.request.reply.withdraw()
    assert not caller.request.reply.deliver(InferenceFailedError())
    assert caller.request.reply.done()
    assert caller.waits


@pytest.mark.parametrize("settle", [lambda r: r.deliver(InferenceFailedError()), Reply.withdraw])
def test_settling_releases_the_producer_once(settle):
    """If nothing released it before."""
    caller = Caller()
    settle(caller.request.reply)
    caller.request.reply.release()
    assert caller.releases == 1


def test_release_precedes_the_outcome():
    """A producer may continue when it sees the outcome."""
    events = []
    Reply(lambda _: events.append("outcome"), lambda: events.append("released")).deliver(InferenceFailedError())
    assert events == ["released", "outcome"]


def test_outcome_is_delivered_if_the_release_fails():
    """A failing producer does not lose the answer."""
    outcomes = []
    reply = Reply(outcomes.append, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reply.deliver(InferenceFailedError())
    assert len(outcomes) == 1


@pytest.mark.parametrize("settle", [lambda r: r.deliver(InferenceFailedError()), Reply.withdraw])
def test_settled_reply_releases_its_callbacks(settle):
    """They usually refer to the request, so keeping them would be a reference cycle."""

    class Waiter:
        def on_outcome(self, outcome):
            pass

        def on_released(self):
            pass

    waiter = Waiter()
    reply = Reply(waiter.on_outcome, waiter.on_released)
    gone = weakref.ref(waiter)
    settle(reply)
    del waiter
    assert gone() is None


def test_only_one_of_many_threads_settles():
    """The claim is atomic."""
    caller = Caller()
    start = threading.Barrier(8)
    wins = []

    def settle() -> None:
        start.wait()
        wins.append(caller.request.reply.deliver(InferenceFailedError()))

    threads = [threading.Thread(target=settle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]
    assert len(caller.outcomes) == 1
