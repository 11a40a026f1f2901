"""The handle that settles a request exactly once."""

import threading
import weakref

import pytest

from inferd.batching.request import Reply
from inferd.errors import InferenceFailedError
from tests.fakes import Caller


def test_the_first_outcome_counts_and_later_ones_do_nothing():
    """The second call returns False, and the caller gets one outcome."""
    caller = Caller()
    first, second = InferenceFailedError(), InferenceFailedError()
    assert caller.request.reply.deliver(first)
    assert not caller.request.reply.deliver(second)
    assert not caller.request.reply.withdraw()
    assert caller.outcome is first


def test_a_withdrawn_request_gets_no_outcome():
    """After a cancel an answer is discarded."""
    caller = Caller()
    assert caller.request.reply.withdraw()
    assert not caller.request.reply.deliver(InferenceFailedError())
    assert caller.request.reply.done()
    assert caller.waits


@pytest.mark.parametrize("settle", [lambda r: r.deliver(InferenceFailedError()), Reply.withdraw])
def test_settling_releases_the_producer_if_nothing_did_before(settle):
    """A producer is never left waiting for the word to go on, and hears it once."""
    caller = Caller()
    settle(caller.request.reply)
    caller.request.reply.release()
    assert caller.releases == 1


def test_release_comes_before_the_outcome():
    """A producer may go on when it sees the outcome."""
    events = []
    Reply(lambda _: events.append("outcome"), lambda: events.append("released")).deliver(InferenceFailedError())
    assert events == ["released", "outcome"]


def test_the_outcome_is_delivered_even_if_the_release_fails():
    """A broken producer does not cost the caller its answer."""
    outcomes = []
    reply = Reply(outcomes.append, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reply.deliver(InferenceFailedError())
    assert len(outcomes) == 1


@pytest.mark.parametrize("settle", [lambda r: r.deliver(InferenceFailedError()), Reply.withdraw])
def test_a_settled_reply_lets_go_of_who_waited(settle):
    """What waits for a request usually holds it, so the request must not hold what waited: that would be a cycle."""

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


def test_one_of_many_threads_wins():
    """The claim is atomic: with many threads at once one delivers."""
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
