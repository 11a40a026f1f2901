"""A unary call on a fake core: every order of events, every claim."""

import logging
import threading

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.rpc import core
from inferd.rpc.call import CoreUnaryCall
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


REJECTION = ["SendInitialMetadata", "ReceiveCloseOnServer", "SendStatusFromServer"]


def kinds(bench):
    """Return the batches that were started."""
    return [batch.kinds for batch in bench.core.started]


def test_answer_is_one_batch(bench):
    """Initial metadata, message and status, so that they leave in one write. The call's close was asked for before."""
    assert receive(bench) == [b"request"]
    assert bench.call.reply(b"answer")
    assert kinds(bench) == [
        ["ReceiveMessage"],
        ["ReceiveCloseOnServer"],
        ["SendInitialMetadata", "SendMessage", "SendStatusFromServer"],
    ]


def test_answer_that_the_core_would_refuse(bench, monkeypatch):
    """It ends the call with the status that the caller gets, not with the OK of an answer."""
    monkeypatch.setattr(core, "MOST_MESSAGE_BYTES", 8)
    receive(bench)
    assert bench.call.reply(b"too large")
    ((code, details),) = bench.recorder.ends
    assert (code.name, details) == ("RESOURCE_EXHAUSTED", "the answer has 9 bytes, gRPC's messages at most 8")


def test_rejection_needs_no_message(bench):
    """A call can be rejected before any of it is read, in one batch with its close."""
    assert bench.call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    assert kinds(bench) == [REJECTION]
    bench.core.complete("SendStatusFromServer")
    assert bench.live.count == 0


@pytest.mark.parametrize("message", [b"request", None])
def test_rejection_while_the_message_is_received(bench, message):
    """The close is asked for once, whatever the receive brings."""
    bench.call.serve(lambda call, request: None)
    bench.call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full")
    bench.core.complete("ReceiveMessage", message=message)
    bench.core.complete("SendStatusFromServer")
    assert kinds(bench) == [["ReceiveMessage"], REJECTION]
    assert (bench.codes, bench.live.count) == (["RESOURCE_EXHAUSTED"], 0)


def test_answer_of_the_handler_itself_comes_with_the_close(bench):
    """A refusal then takes the core two batches instead of three."""
    receive(bench, handler=lambda call, request: call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full"))
    bench.core.complete("SendStatusFromServer")
    assert kinds(bench) == [["ReceiveMessage"], REJECTION]
    assert (bench.codes, bench.live.count) == (["RESOURCE_EXHAUSTED"], 0)


@pytest.mark.parametrize(("code", "told"), [("RESOURCE_EXHAUSTED", 1), ("INVALID_ARGUMENT", 0)])
def test_reports_overload_to_the_loop(bench, code, told):
    """It then gathers its rounds; errors of callers are no overload."""
    receive(bench, handler=lambda call, request: call.abort(grpc.StatusCode[code], "no"))
    assert len(bench.loop.rejected_at) == told


def test_answer_of_another_thread_comes_without_the_close(bench):
    """Whether the close was asked for is known on the poll thread only, which asks for it after the handler."""

    def answer(call, request):
        thread = threading.Thread(target=call.reply, args=(b"answer",))
        thread.start()
        thread.join()

    receive(bench, handler=answer)
    assert kinds(bench) == [
        ["ReceiveMessage"],
        ["SendInitialMetadata", "SendMessage", "SendStatusFromServer"],
        ["ReceiveCloseOnServer"],
    ]
    bench.core.complete("SendStatusFromServer")
    bench.core.complete("ReceiveCloseOnServer")
    assert (bench.codes, bench.live.count) == (["OK"], 0)


def test_operations_are_never_used_twice(bench):
    """The fake core compares each operation with all before, across calls."""
    other = Bench(CoreUnaryCall)
    other.core.seen = bench.core.seen
    for each in (bench, other):
        receive(each)
        each.call.reply(b"same")
    assert len(bench.core.seen) == 2 * 5


def test_call_is_live_until_all_events_have_come(bench):
    """The server may be freed only when nothing is pending."""
    receive(bench)
    bench.call.reply(b"answer")
    assert bench.live.count == 1
    bench.core.complete("SendStatusFromServer")
    assert bench.live.count == 1
    bench.core.complete("ReceiveCloseOnServer")
    assert bench.live.count == 0


def test_first_answer_wins(bench):
    """Later ones return False and do nothing."""
    receive(bench)
    assert bench.call.abort(INTERNAL, "first")
    assert not bench.call.reply(b"second")
    assert not bench.call.abort(OK, "third")
    assert bench.codes == ["INTERNAL"]
    assert len(bench.core.started) == 3


def test_claim_is_exclusive_among_threads(bench):
    """Exactly one of the answers from many threads is sent."""
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


def test_cancel_while_the_request_waits(bench):
    """Callbacks run; a later answer returns False."""
    gone = []
    receive(bench)
    bench.call.on_terminated(lambda: gone.append(1))
    bench.core.complete("ReceiveCloseOnServer")
    assert gone == [1]
    assert bench.codes == ["CANCELLED"]
    assert bench.live.count == 0
    assert not bench.call.reply(b"late")
    assert bench.core.in_flight == []


def test_on_terminated_runs_at_once_after_the_end(bench):
    """Once."""
    receive(bench)
    bench.core.complete("ReceiveCloseOnServer")
    gone = []
    bench.call.on_terminated(lambda: gone.append(1))
    assert gone == [1]


def test_on_terminated_does_not_run_after_an_answer(bench):
    """The close event follows every answer."""
    gone = []
    receive(bench)
    bench.call.on_terminated(lambda: gone.append(1))
    bench.call.reply(b"answer")
    bench.core.complete("ReceiveCloseOnServer")
    bench.core.complete("SendStatusFromServer", success=False)
    assert (gone, bench.live.count) == ([], 0)


def test_failed_callback_does_not_stop_the_others(bench, caplog):
    """All callbacks run."""
    gone = []
    receive(bench)
    bench.call.on_terminated(lambda: gone.append("a"))
    bench.call.on_terminated(lambda: 1 / 0)
    bench.call.on_terminated(lambda: gone.append("b"))
    bench.core.complete("ReceiveCloseOnServer")
    assert sorted(gone) == ["a", "b"]
    assert "a callback at the end" in caplog.text


def test_end_at_the_deadline_is_deadline_exceeded():
    """An end before it is CANCELLED."""
    for waited_s, expected in ((3.0, "CANCELLED"), (5.0, "DEADLINE_EXCEEDED")):
        bench = Bench(CoreUnaryCall, deadline=1005.0)
        receive(bench)
        bench.loop.clock.advance(waited_s)
        bench.core.complete("ReceiveCloseOnServer")
        assert bench.codes == [expected]


def test_half_close_without_a_message_is_unimplemented(bench):
    """Without an answer the client would wait until its deadline."""
    assert receive(bench, message=None) == []
    assert bench.codes == []
    bench.loop.run_timers()
    assert bench.recorder.ends == [(grpc.StatusCode.UNIMPLEMENTED, "expected one request message, got none")]


def test_cancel_before_the_message_is_no_half_close(bench):
    """The core reports both as a receive without a message; the close event that follows distinguishes them."""
    receive(bench, message=None)
    bench.core.complete("ReceiveCloseOnServer")
    bench.loop.run_timers()
    assert bench.codes == ["CANCELLED"]
    assert bench.live.count == 0


def test_message_rejected_by_the_core(bench):
    """An oversize message fails its event; the core answers by itself."""
    got = []
    bench.call.serve(lambda call, request: got.append(request))
    bench.core.complete("ReceiveMessage", success=False)
    assert bench.core.find("SendStatusFromServer") is None
    bench.core.complete("ReceiveCloseOnServer")
    assert (got, bench.codes, bench.live.count) == ([], ["RESOURCE_EXHAUSTED"], 0)


@pytest.mark.parametrize("refused", ["receive", "answer"])
def test_refused_batch_cancels_the_call(bench, caplog, refused):
    """Its event never arrives, so the call must not wait for it."""
    if refused == "receive":
        bench.core.refuse = 1
        bench.call.serve(lambda call, request: None)
        bench.loop.run_soon()
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


def test_exception_of_the_handler_is_internal(bench, caplog):
    """The caller gets a fixed text, the log the cause."""

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
    """``reply`` raises an error with the key, and the client gets a status."""
    receive(bench)
    with pytest.raises(ValueError, match="'Bad'"):
        answer(bench.call)
    assert bench.codes == ["INTERNAL"]


def test_sends_details_that_are_not_utf8(bench):
    """Nothing may fail between the claim and the batch."""
    assert bench.call.abort(INTERNAL, "\ud800 half a character")
    assert bench.core.find("SendStatusFromServer") is not None


def test_peer_is_decoded(bench):
    """The core's peer is percent-encoded."""
    assert bench.call.peer == "ipv6:[::1]:1234"


@given(st.lists(st.sampled_from(["message", "no message", "close", "reply", "abort", "queued", "soon"]), max_size=12))
def test_any_order_of_events_ends_once(actions):
    """One end is reported, at most one answer is sent, and no call is left live."""
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
