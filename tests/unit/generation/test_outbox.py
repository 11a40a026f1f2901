"""Deltas reach their receivers in order, a few in each round of the poll thread."""

import threading

import pytest

from inferd.errors import ModelUnavailableError
from inferd.generation.outbox import Outbox
from inferd.generation.request import Delta
from tests.fakes import FakeClock, ManualPollThread
from tests.generating import FakeDecoder, Generation, a_request
from tests.patience import PATIENCE_S


def an_outbox(count):
    """Return an outbox with ``count`` open requests, and its poll thread, which keeps its callbacks for the test."""
    poll_thread = ManualPollThread(FakeClock())
    poll_thread.busy = True
    outbox = Outbox(poll_thread, lambda: None)
    requests = [a_request() for _ in range(count)]
    for request in requests:
        outbox.add(request)
    return outbox, poll_thread, requests


def post_step(outbox, requests, token):
    outbox.post([(request, Delta(token_ids=[token])) for request in requests])


def test_other_work_comes_between_the_outcomes_of_a_step():
    """The 32 deltas of a step are delivered in several rounds of the poll thread."""
    outbox, poll_thread, requests = an_outbox(32)
    post_step(outbox, requests, 7)
    found = []
    while poll_thread.soon:
        poll_thread.run_soon()
        found.append(sum(len(request.receiver.deltas) for request in requests))
    assert len(found) > 2
    assert found[0] < 16
    assert found[-1] == 32


def test_steps_come_in_order():
    """Also if a step is posted before all of the one before it was delivered."""
    outbox, poll_thread, requests = an_outbox(20)
    post_step(outbox, requests, 1)
    poll_thread.run_soon()
    post_step(outbox, requests, 2)
    outbox.post_to_all(ModelUnavailableError("unloaded"))
    while poll_thread.soon:
        poll_thread.run_soon()
    assert [request.receiver.tokens for request in requests] == [[1, 2]] * 20
    assert all(isinstance(request.receiver.error, ModelUnavailableError) for request in requests)
    assert outbox.open == 0


def test_waits_until_the_outcomes_of_a_step_have_been_sent():
    """That is when the round after the last of them begins, as each round sends at its end."""
    outbox, poll_thread, requests = an_outbox(6)
    post_step(outbox, requests, 1)
    waiting = threading.Thread(target=outbox.wait_until_sent, args=(PATIENCE_S,))
    waiting.start()
    while not requests[-1].receiver.deltas:
        poll_thread.run_soon()
    assert waiting.is_alive()
    poll_thread.run_soon()
    waiting.join()
    assert not poll_thread.soon


def test_outcomes_of_one_round_are_not_waited_for():
    """What is delivered at once delays nobody."""
    outbox, _, requests = an_outbox(4)
    post_step(outbox, requests, 1)
    outbox.wait_until_sent(PATIENCE_S)


def test_waits_after_each_step_until_its_tokens_are_sent(monkeypatch):
    """For a tenth of the time of the step, at most; not after a chunk of a prompt."""
    generation, limits = Generation(FakeDecoder(run_s=0.5)), []
    monkeypatch.setattr(generation.engine.loop._outbox, "wait_until_sent", limits.append)
    generation.submit(a_request(prompt=20, max_tokens=3))
    while not generation.engine.loop.slots.decoding:
        generation.run()
    assert limits == []
    generation.finish()
    assert limits == pytest.approx([0.05] * 2)
