"""Taking calls from the core."""

from types import SimpleNamespace

import pytest

from inferd.rpc.accept import Acceptor, Methods, callback_unary
from inferd.rpc.call import LiveCalls
from inferd.rpc.interceptors import InterceptorChain
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
        self.live = LiveCalls(self.loop, InterceptorChain([self.recorder]))
        self.methods = Methods()
        self.methods.add_registered("x.Y", {"Z": callback_unary(handler)})
        self.acceptor = Acceptor(
            self.server,
            None,
            self.live,
            self.methods,
            None,
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


def test_calls_are_armed_at_the_start():
    """Rule 7: the core always has calls to hand over."""
    bench = Bench(armed_calls=7)
    assert (len(bench.server.requests), bench.acceptor.armed) == (7, 7)


def test_the_next_call_is_armed_before_this_one_is_looked_at():
    """Rule 7: even if everything about this call fails."""
    bench = Bench(armed_calls=2)
    armed_then = []
    bench.methods.find = lambda *_: armed_then.append(bench.acceptor.armed) or ("/x.Y/Z", None)
    bench.accept()
    assert armed_then == [2]


def test_calls_that_come_back_at_the_stop_are_not_armed_again():
    """Rule 13: the count of armed calls goes to zero."""
    bench = Bench(armed_calls=2)
    bench.acceptor.stop()
    bench.accept(success=False)
    bench.accept(success=False)
    assert (bench.acceptor.armed, bench.live.count) == (0, 0)


def test_a_call_that_slips_in_at_the_stop_is_served():
    """Rule 13: it was accepted by the core, so it is answered; but no further one is asked for."""
    bench = Bench(armed_calls=1)
    bench.acceptor.stop()
    core_call = bench.accept()
    assert bench.acceptor.armed == 0
    assert core_call.find("ReceiveMessage") is not None


def test_above_the_limit_calls_are_refused_unread():
    """Rule 7: a refusal needs no message, names a pushback, and makes room for no one."""
    bench = Bench(max_inflight_unary=1)
    first, second = bench.accept(), bench.accept()
    assert first.find("ReceiveMessage") is not None
    assert [batch.kinds for batch in second.started] == [
        ["ReceiveCloseOnServer"],
        ["SendInitialMetadata", "SendStatusFromServer"],
    ]
    assert bench.codes == ["RESOURCE_EXHAUSTED"]
    second.complete("SendStatusFromServer")
    second.complete("ReceiveCloseOnServer")
    assert bench.accept().find("ReceiveMessage") is None


def test_the_end_of_a_call_makes_room():
    """A call counts until it is no longer live."""
    bench = Bench(max_inflight_unary=1, handler=lambda call, message: call.reply(b""))
    first = bench.accept()
    first.complete("ReceiveMessage", message=b"")
    first.complete("SendStatusFromServer")
    first.complete("ReceiveCloseOnServer")
    assert bench.accept().find("ReceiveMessage") is not None
    assert bench.codes == ["OK"]


@pytest.mark.parametrize(
    ("find", "expected"),
    [(lambda *_: ("/x.Y/Q", None), "UNIMPLEMENTED"), (lambda *_: 1 / 0, "UNKNOWN")],
)
def test_a_call_without_a_handler_is_answered(find, expected):
    """Unknown methods, and handlers that cannot be looked for."""
    bench = Bench()
    bench.methods.find = find
    bench.accept(b"/x.Y/Q")
    assert bench.codes == [expected]


def test_what_is_remembered_of_a_method_is_not_looked_for_again():
    """Each call of a known method is served, but its handler is found once."""
    bench, found = Bench(), []
    find = bench.methods.find
    bench.methods.find = lambda *arguments: found.append(arguments) or find(*arguments)
    for _ in range(3):
        assert bench.accept().find("ReceiveMessage") is not None
    assert len(found) == 1


def test_the_latest_call_wakes_the_loop():
    """Rule 10: a wake-up needs a call."""
    bench = Bench()
    assert bench.accept() is bench.loop.waker


def test_express_methods_have_calls_of_their_own_armed():
    """They are asked for besides the others, under their own name."""
    bench = Bench(armed_calls=3, express_methods=["/x.Y/Z"])
    assert len(bench.server.requests) == 3
    assert bench.server.registered_requests
    assert bench.acceptor.armed == 3 + len(bench.server.registered_requests)


def test_an_express_call_is_served_and_the_next_one_armed():
    """Its handler is found although the core does not name the method again."""
    bench = Bench(express_methods=["/x.Y/Z"])
    armed = bench.acceptor.armed
    core_call = bench.accept_express()
    assert core_call.find("ReceiveMessage") is not None
    assert core_call is bench.loop.waker
    assert bench.acceptor.armed == armed


def test_express_calls_that_come_back_at_the_stop_are_not_armed_again():
    """Rule 13, as for the others; one that slips in is served."""
    bench = Bench(armed_calls=1, express_methods=["/x.Y/Z"])
    bench.acceptor.stop()
    bench.accept(success=False)
    assert bench.accept_express().find("ReceiveMessage") is not None
    while bench.server.registered_requests:
        bench.accept_express(success=False)
    assert (bench.acceptor.armed, bench.live.count) == (0, 1)
