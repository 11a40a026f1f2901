"""Taking calls from the core."""

from types import SimpleNamespace

import pytest

from inferd.rpc.accept import Acceptor, InterceptorChain, Methods
from inferd.rpc.interfaces import callback_unary
from inferd.rpc.live_calls import LiveCalls
from tests.unit.rpc.fakes import FakeCoreCall, FakeEvent, FakeLoop, Recorder

_UNREAD_S = 0.25


class FakeServer:
    def __init__(self):
        self.requests = []
        self.registered = []
        self.registered_requests = []

    def request_call(self, call_queue, server_queue, tag):
        self.requests.append(tag)
        return 0

    def register_method(self, method):
        self.registered.append(method)

    def request_registered_call(self, call_queue, server_queue, method, tag):
        assert method in self.registered
        self.registered_requests.append(tag)
        return 0


class Loop(FakeLoop):
    is_gathering = False

    def wake_by(self, call):
        self.waker = call

    def note_late(self, now):
        self.late_at = now


class Bench:
    """An acceptor with one callback method, ``/x.Y/Z``."""

    def __init__(
        self,
        *,
        armed_calls=4,
        max_inflight_unary=None,
        handler=lambda call, message: None,
        express_methods=(),
        max_unread_s=_UNREAD_S,
    ):
        self.server, self.loop, self.recorder = FakeServer(), Loop(), Recorder()
        chain = InterceptorChain([self.recorder])
        self.live = LiveCalls(self.loop, chain.all_finishers)
        self.methods = Methods()
        self.methods.add_registered("x.Y", {"Z": callback_unary(handler)})
        self.acceptor = Acceptor(
            self.server,
            None,
            self.live,
            self.methods,
            None,
            chain,
            armed_calls=armed_calls,
            max_inflight_unary=max_inflight_unary,
            express_methods=express_methods,
            max_unread_s=max_unread_s,
        )
        self.acceptor.register()
        self.acceptor.start()

    def accept(self, method=b"/x.Y/Z", *, success=True, peer=b"ipv4:127.0.0.1:1", deadline=9.2e18):
        event = FakeEvent(success=success)
        event.call = FakeCoreCall()
        event.call.peer = lambda: peer
        event.call_details = SimpleNamespace(method=method, deadline=deadline)
        event.invocation_metadata = ()
        self.server.requests[-1](event)
        return event.call

    def accept_express(self, *, success=True):
        """Hand over a call as the core does those of a registered method: without the method's name."""
        event = FakeEvent(success=success)
        event.call = FakeCoreCall()
        event.call_details = SimpleNamespace(method=b"", deadline=9.2e18)
        event.invocation_metadata = ()
        self.server.registered_requests.pop()(event)
        return event.call

    @property
    def codes(self):
        return [code.name for code, _ in self.recorder.ends]


def _is_served(core_call):
    return core_call.find("ReceiveMessage") is not None


def _end_requests(bench):
    """Have the core report that no more calls come."""
    while bench.acceptor.armed:
        bench.accept(success=False)


def test_requests_calls_at_the_start():
    """The core always has calls to hand over."""
    bench = Bench(armed_calls=7)
    assert (len(bench.server.requests), bench.acceptor.armed) == (7, 7)


def test_requests_the_next_call_first():
    """Even if handling this one fails."""
    bench = Bench(armed_calls=2)
    armed_then = []
    bench.methods.find = lambda *_: armed_then.append(bench.acceptor.armed) or ("/x.Y/Z", None)
    bench.accept()
    assert armed_then == [2]


def test_requests_no_call_after_the_stop():
    """The count of requested calls goes to zero."""
    bench = Bench(armed_calls=2)
    bench.acceptor.stop()
    _end_requests(bench)
    assert (bench.acceptor.armed, bench.live.count) == (0, 0)


def test_requests_the_calls_that_have_come_at_the_stop():
    """The core would cancel them otherwise."""
    bench = Bench(armed_calls=2)
    bench.acceptor.stop()
    assert bench.acceptor.armed > 1000
    requested = len(bench.server.requests)
    assert _is_served(bench.accept())
    assert len(bench.server.requests) == requested


def test_serves_a_call_accepted_at_the_stop():
    """The core accepted it, so it is answered; no further one is requested."""
    bench = Bench(armed_calls=1)
    bench.acceptor.stop()
    armed = bench.acceptor.armed
    assert _is_served(bench.accept())
    assert bench.acceptor.armed == armed - 1


def test_rejects_calls_above_the_limit_unread():
    """The rejection needs no message, and the rejected call does not count."""
    bench = Bench(max_inflight_unary=1)
    first, second = bench.accept(), bench.accept()
    assert first.find("ReceiveMessage") is not None
    assert [batch.kinds for batch in second.started] == [
        ["SendInitialMetadata", "ReceiveCloseOnServer", "SendStatusFromServer"],
    ]
    assert bench.codes == ["RESOURCE_EXHAUSTED"]
    second.complete_all()
    assert bench.accept().find("ReceiveMessage") is None


def test_ended_call_does_not_count():
    """A call counts while it is live."""
    bench = Bench(max_inflight_unary=1, handler=lambda call, message: call.reply(b""))
    first = bench.accept()
    first.complete("ReceiveMessage", message=b"")
    first.complete_all()
    assert bench.accept().find("ReceiveMessage") is not None
    assert bench.codes == ["OK"]


@pytest.mark.parametrize(
    ("find", "expected"),
    [(lambda *_: ("/x.Y/Q", None), "UNIMPLEMENTED"), (lambda *_: 1 / 0, "UNKNOWN")],
)
def test_answers_call_without_a_handler(find, expected):
    """Unknown methods, and lookups that fail."""
    bench = Bench()
    bench.methods.find = find
    bench.accept(b"/x.Y/Q")
    assert bench.codes == [expected]


def test_uses_the_cached_handler():
    """Each call of a known method is served, with one lookup."""
    bench, found = Bench(), []
    find = bench.methods.find
    bench.methods.find = lambda *arguments: found.append(arguments) or find(*arguments)
    for _ in range(3):
        assert bench.accept().find("ReceiveMessage") is not None
    assert len(found) == 1


def test_latest_call_wakes_the_loop():
    """A wake-up needs a call."""
    bench = Bench()
    assert bench.accept() is bench.loop.waker


def test_requests_express_calls_by_method():
    """In addition to the others."""
    bench = Bench(armed_calls=3, express_methods=["/x.Y/Z"])
    assert len(bench.server.requests) == 3
    assert bench.server.registered_requests
    assert bench.acceptor.armed == 3 + len(bench.server.registered_requests)


def test_serves_an_express_call_and_requests_the_next():
    """The event does not name the method."""
    bench = Bench(express_methods=["/x.Y/Z"])
    armed = bench.acceptor.armed
    core_call = bench.accept_express()
    assert core_call.find("ReceiveMessage") is not None
    assert core_call is bench.loop.waker
    assert bench.acceptor.armed == armed


def test_requests_no_express_call_after_the_stop():
    """As for other calls; one accepted at the stop is served."""
    bench = Bench(armed_calls=1, express_methods=["/x.Y/Z"])
    bench.acceptor.stop()
    assert bench.accept_express().find("ReceiveMessage") is not None
    while bench.server.registered_requests:
        bench.accept_express(success=False)
    _end_requests(bench)
    assert (bench.acceptor.armed, bench.live.count) == (0, 1)


def test_serves_calls_after_the_round_while_others_are_rejected():
    """All that came in it, and as many are requested as may come."""
    bench = Bench(express_methods=["/x.Y/Z"])
    bench.loop.is_gathering = True
    calls = [bench.accept() for _ in range(3)]
    assert not any(_is_served(call) for call in calls)
    assert bench.acceptor.armed > 1000
    assert _is_served(bench.accept_express())
    bench.loop.run_soon()
    assert all(_is_served(call) for call in calls)


def test_serves_the_latest_of_too_many_calls_first():
    """The rest in the next rounds, which read all sockets before."""
    bench = Bench()
    bench.loop.is_gathering = True
    calls = [bench.accept() for _ in range(1000)]
    bench.loop.soon.popleft()()
    served = [number for number, call in enumerate(calls) if _is_served(call)]
    assert served == list(range(1000 - len(served), 1000))
    assert bench.loop.late_at == bench.loop.now()
    bench.loop.is_gathering = False
    latest = bench.accept()
    bench.loop.soon.popleft()()
    assert _is_served(latest)
    bench.loop.run_soon()
    assert all(_is_served(call) for call in calls)
    assert _is_served(bench.accept())


def test_rejects_calls_that_waited_too_long():
    """Unread, while later ones are served."""
    bench = Bench()
    bench.loop.is_gathering = True
    calls = [bench.accept() for _ in range(300)]
    bench.loop.soon.popleft()()
    bench.loop.clock.advance(_UNREAD_S)
    latest = bench.accept()
    bench.loop.run_soon()
    assert _is_served(latest)
    assert set(bench.codes) == {"RESOURCE_EXHAUSTED"}
    assert len(bench.codes) + sum(_is_served(call) for call in calls) == len(calls)


def test_cancels_calls_that_expired_unread():
    """Their callers see no status, and their places are free at once; they count as refused."""
    bench = Bench()
    bench.loop.is_gathering = True
    calls = [bench.accept(deadline=1.0) for _ in range(300)]
    latest = bench.accept(peer=b"ipv4:127.0.0.1:2")
    bench.loop.soon.popleft()()
    assert all(call.cancels for call in calls)
    assert bench.live.refusals.counts["UNREAD_TOO_LONG"] == len(calls)
    assert _is_served(latest)


def test_serves_calls_in_order_without_a_limit():
    """None of them is rejected."""
    bench = Bench(max_unread_s=None)
    bench.loop.is_gathering = True
    assert _is_served(bench.accept())


def test_is_done_when_the_calls_that_came_are_served():
    """The server does not stop before."""
    bench = Bench(armed_calls=1)
    bench.loop.is_gathering = True
    core_call = bench.accept()
    bench.acceptor.stop()
    _end_requests(bench)
    assert not bench.acceptor.is_done
    bench.loop.run_soon()
    assert bench.acceptor.is_done
    assert _is_served(core_call)


def test_failure_loses_no_other_call():
    """The others are served in the next round."""
    bench = Bench()
    bench.loop.is_gathering = True
    calls = [bench.accept() for _ in range(3)]
    calls[0].start_server_batch = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        bench.loop.soon.popleft()()
    bench.loop.run_soon()
    assert all(_is_served(call) for call in calls[1:])
