"""Taking calls from the core."""

from types import SimpleNamespace

import pytest

from inferd.rpc.accept import Acceptor, InterceptorChain, Methods
from inferd.rpc.interfaces import callback_unary
from inferd.rpc.live_calls import LiveCalls
from tests.unit.rpc.fakes import FakeCoreCall, FakeEvent, FakeLoop, Recorder


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
    def wake_by(self, call):
        self.waker = call


class Bench:
    """An acceptor with one callback method, ``/x.Y/Z``."""

    def __init__(
        self, *, armed_calls=4, max_inflight_unary=None, handler=lambda call, message: None, express_methods=()
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
        )
        self.acceptor.register()
        self.acceptor.start()

    def accept(self, method=b"/x.Y/Z", *, success=True):
        event = FakeEvent(success=success)
        event.call = FakeCoreCall()
        event.call_details = SimpleNamespace(method=method, deadline=9.2e18)
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
    bench.accept(success=False)
    bench.accept(success=False)
    assert (bench.acceptor.armed, bench.live.count) == (0, 0)


def test_serves_a_call_accepted_at_the_stop():
    """The core accepted it, so it is answered; no further one is requested."""
    bench = Bench(armed_calls=1)
    bench.acceptor.stop()
    core_call = bench.accept()
    assert bench.acceptor.armed == 0
    assert core_call.find("ReceiveMessage") is not None


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
    bench.accept(success=False)
    assert bench.accept_express().find("ReceiveMessage") is not None
    while bench.server.registered_requests:
        bench.accept_express(success=False)
    assert (bench.acceptor.armed, bench.live.count) == (0, 1)
