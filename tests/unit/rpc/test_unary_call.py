"""A unary call on a fake core: every order of events, every claim."""

import logging
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc.unary_call import CoreUnaryCall
from tests.unit.rpc.fakes import Bench

OK = grpc.StatusCode.OK
INTERNAL = grpc.StatusCode.INTERNAL


@pytest.fixture
def bench():
    return Bench(CoreUnaryCall)


def receive(bench, message=b"request", handler=None):
    """Serve the call and let its message arrive; returns what the handler got."""
    got = []
    bench.call.serve(handler or (lambda call, request: got.append(request)))
    bench.core.complete("ReceiveMessage", message=message)
    return got


def test_close_is_watched_once_from_the_start_in_a_batch_of_its_own(bench):
    """Rule 4: ReceiveCloseOnServer exactly once, alone, at accept."""
    receive(bench)
    bench.call.reply(b"answer")
    kinds = [batch.kinds for batch in bench.core.started]
    assert kinds[0] == ["ReceiveCloseOnServer"]
    assert sum("ReceiveCloseOnServer" in batch for batch in kinds) == 1


def test_an_answer_is_one_final_batch(bench):
    """Rule 2: initial metadata, message and status in one batch, so in one flush; no receive beside them."""
    assert receive(bench) == [b"request"]
    assert bench.call.reply(b"answer")
    assert [batch.kinds for batch in bench.core.started] == [
        ["ReceiveCloseOnServer"],
        ["ReceiveMessage"],
        ["SendInitialMetadata", "SendMessage", "SendStatusFromServer"],
    ]


def test_a_refusal_needs_no_message(bench):
    """Rule 7: a call can be refused before anything of it is read."""
    assert bench.call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert [batch.kinds for batch in bench.core.started] == [
        ["ReceiveCloseOnServer"],
        ["SendInitialMetadata", "SendStatusFromServer"],
    ]


def test_operations_are_never_used_twice(bench):
    """Rule 1: new operation objects for every batch, of every call; the fake core compares each with all before."""
    other = Bench(CoreUnaryCall)
    other.core.seen = bench.core.seen
    before = len(bench.core.seen)
    for each in (bench, other):
        receive(each)
        each.call.reply(b"same")
    assert len(bench.core.seen) - before == 2 * 4


def test_the_call_is_live_until_every_event_is_back(bench):
    """Rule 13: the server may only be freed when nothing is pending."""
    receive(bench)
    bench.call.reply(b"answer")
    assert bench.live.count == 1
    bench.core.complete("SendStatusFromServer")
    assert bench.live.count == 1
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_the_first_answer_wins(bench):
    """Rule 6: one claim per call; the losers are told and do nothing."""
    receive(bench)
    assert bench.call.abort(INTERNAL, "first")
    assert not bench.call.reply(b"second")
    assert not bench.call.abort(OK, "third")
    assert bench.codes == ["INTERNAL"]
    assert len(bench.core.started) == 3


def test_the_claim_holds_among_threads(bench):
    """Rule 6: of answers from many threads at once exactly one is sent."""
    receive(bench)
    barrier = threading.Barrier(8)
    results = []

    def answer():
        barrier.wait()
        results.append(bench.call.reply(b"answer"))

    threads = [threading.Thread(target=answer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False] * 7 + [True]
    assert bench.codes == ["OK"]


def test_an_end_without_our_answer(bench):
    """Rule 4: a cancel is told while the request waits; the answer then comes too late."""
    gone = []
    receive(bench)
    bench.call.on_terminated(lambda: gone.append(1))
    bench.core.complete("ReceiveCloseOnServer")
    assert gone == [1]
    assert bench.codes == ["CANCELLED"]
    assert bench.live.count == 0
    assert not bench.call.reply(b"late")
    assert bench.core.in_flight == []


def test_termination_is_told_at_once_if_it_was_before(bench):
    """Who asks late is called back all the same, once."""
    bench.core.complete("ReceiveCloseOnServer")
    gone = []
    bench.call.on_terminated(lambda: gone.append(1))
    assert gone == [1]


def test_termination_is_not_told_after_our_answer(bench):
    """The end that follows an answer is no news."""
    gone = []
    receive(bench)
    bench.call.on_terminated(lambda: gone.append(1))
    bench.call.reply(b"answer")
    bench.core.complete("ReceiveCloseOnServer")
    bench.core.complete("SendStatusFromServer", success=False)
    assert (gone, bench.live.count) == ([], 0)


def test_a_failing_callback_does_not_stop_the_others(bench, caplog):
    """Everyone hears of the end."""
    gone = []
    bench.call.on_terminated(lambda: gone.append("a"))
    bench.call.on_terminated(lambda: 1 / 0)
    bench.call.on_terminated(lambda: gone.append("b"))
    bench.core.complete("ReceiveCloseOnServer")
    assert sorted(gone) == ["a", "b"]
    assert "a callback at the end" in caplog.text


def test_the_deadline_explains_the_end():
    """An end at the deadline counts as DEADLINE_EXCEEDED, one before it as CANCELLED."""
    for waited_s, expected in ((3.0, "CANCELLED"), (5.0, "DEADLINE_EXCEEDED")):
        bench = Bench(CoreUnaryCall, deadline=1005.0)
        bench.loop.clock.advance(waited_s)
        bench.core.complete("ReceiveCloseOnServer")
        assert bench.codes == [expected]


def test_half_close_without_a_message_is_answered(bench):
    """Rule 5: no message on a unary call would hang; it is answered UNIMPLEMENTED."""
    assert receive(bench, message=None) == []
    assert bench.codes == []
    bench.loop.run_timers()
    assert bench.recorder.ends == [(grpc.StatusCode.UNIMPLEMENTED, "expected one request message, got none")]


def test_a_cancel_before_the_message_is_not_taken_for_a_half_close(bench):
    """Rule 5: the core tells both by no message; the end of the call, which follows at once, makes the difference."""
    receive(bench, message=None)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert bench.codes == ["CANCELLED"]
    assert bench.live.count == 0


def test_a_message_that_the_core_refuses(bench):
    """Rule 5: an oversize message comes as a failed event; the core answers by itself, and so it is reported."""
    got = []
    bench.call.serve(lambda call, request: got.append(request))
    bench.core.complete("ReceiveMessage", success=False)
    assert bench.core.find("SendStatusFromServer") is None
    bench.core.complete("ReceiveCloseOnServer")
    assert (got, bench.codes, bench.live.count) == ([], ["RESOURCE_EXHAUSTED"], 0)


@pytest.mark.parametrize("refused", ["receive", "answer"])
def test_a_batch_that_does_not_start_does_not_hang_the_call(bench, caplog, refused):
    """Rule 3: on a non-zero code the tag never arrives, so the call is cancelled and not waited for."""
    if refused == "receive":
        bench.core.refuse = 1
        bench.call.serve(lambda call, request: None)
    else:
        receive(bench)
        bench.core.refuse = 1
        bench.call.reply(b"answer")
    assert bench.core.cancels == 1
    bench.loop.run_soon()
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0
    assert len(bench.codes) == 1
    assert "refused a batch on /x.Y/Z with error 8" in caplog.text


def test_a_handler_that_raises_is_answered_internal(bench, caplog):
    """The caller gets a fixed text, the log gets the cause."""

    def handler(call, request):
        raise RuntimeError("secret")

    with caplog.at_level(logging.ERROR, logger="inferd.rpc"):
        receive(bench, handler=handler)
    assert bench.recorder.ends == [(INTERNAL, "internal error")]
    assert "secret" in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        lambda call: call.reply(b"answer", (("Bad", "x"),)),
        lambda call: call.abort(OK, "", (("Bad", "x"),)),
    ],
)
def test_illegal_metadata_raises_and_ends_the_call(bench, answer):
    """Rule 12: the caller of ``reply`` is told which key, and the caller of the RPC does not wait for ever."""
    receive(bench)
    with pytest.raises(ValueError, match="'Bad'"):
        answer(bench.call)
    assert bench.codes == ["INTERNAL"]


def test_details_that_are_no_utf8_are_sent_all_the_same(bench):
    """Nothing can fail between the claim and the batch."""
    assert bench.call.abort(INTERNAL, "\ud800 half a character")
    assert bench.core.find("SendStatusFromServer") is not None


def test_peer_is_decoded(bench):
    """Rule 15: ``peer()`` is percent-encoded bytes."""
    assert bench.call.peer == "ipv6:[::1]:1234"


def test_retirement_is_told_once(bench):
    """``on_retired`` comes when the call is no longer live, however it ended."""
    retired = []
    bench.call.on_retired = lambda: retired.append(bench.live.count)
    bench.core.complete("ReceiveCloseOnServer")
    assert retired == [0]


@given(st.lists(st.sampled_from(["message", "no message", "close", "reply", "abort", "queued", "soon"]), max_size=12))
def test_any_order_of_events_ends_once(actions):
    """Whatever happens in whatever order: one end reported, one answer at most, and in the end nothing is live."""
    bench = Bench(CoreUnaryCall)
    bench.call.serve(lambda call, request: None)
    answers = 0

    def finish_event():
        if bench.core.find("SendStatusFromServer"):
            bench.core.complete("SendStatusFromServer")

    for action in actions:
        if action in ("message", "no message") and bench.core.find("ReceiveMessage"):
            bench.core.complete("ReceiveMessage", message=b"x" if action == "message" else None)
        elif action == "close" and bench.core.find("ReceiveCloseOnServer"):
            bench.core.complete("ReceiveCloseOnServer")
        elif action == "reply":
            answers += bench.call.reply(b"x")
        elif action == "abort":
            answers += bench.call.abort(INTERNAL, "x")
        elif action == "queued":
            bench.loop.run_timers()
        elif action == "soon":
            finish_event()
    for kind in ("ReceiveMessage", "ReceiveCloseOnServer"):
        if bench.core.find(kind):
            bench.core.complete(kind)
    bench.loop.run_timers()
    finish_event()
    assert answers <= 1
    assert len(bench.codes) == 1
    assert bench.live.count == 0
    assert bench.core.in_flight == []
