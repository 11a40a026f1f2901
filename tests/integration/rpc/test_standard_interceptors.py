"""Standard `grpc.ServerInterceptor`s around our handlers and around ordinary ones."""

import contextvars
import threading

import grpc
import pytest

from inferd.rpc import CallRefusal
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, raise_secret, wait_idle

SHAPES = pytest.mark.parametrize("kind", ["Callback", "Blocking"])
TAG = contextvars.ContextVar("tag", default="unset")


class PassThrough(grpc.ServerInterceptor):
    """Looks and lets pass."""

    def __init__(self):
        self.seen = []
        self.threads = set()

    def intercept_service(self, continuation, details):
        self.seen.append((details.method.rpartition("/")[2], dict(details.invocation_metadata).get("k")))
        self.threads.add(threading.current_thread().name)
        return continuation(details)


class Terminator(grpc.ServerInterceptor):
    """Refuses in the way of grpcio's own examples: with a unary handler that aborts, whatever the method's shape."""

    def __init__(self):
        def refuse(request, context):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    def intercept_service(self, continuation, details):
        return self._refusal


class Wrapper(grpc.ServerInterceptor):
    """Puts its own functions around those of the handler and marks every message."""

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if handler is None:
            return None
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: handler.unary_unary(b"<" + request, context) + b">",
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )

        def stream_stream(requests, context):
            for response in handler.stream_stream((b"<" + request for request in requests), context):
                yield response + b">"

        return grpc.stream_stream_rpc_method_handler(
            stream_stream,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def stream(running, method, requests):
    return running.channel.stream_stream(f"/{SERVICE}/{method}")(iter(requests), timeout=TIMEOUT_S)


@SHAPES
def test_one_that_lets_pass(serve, kind):
    """It sees method and metadata of every call, in a thread that may block; the call goes on as without it."""
    interceptor = PassThrough()
    running = serve(grpc_interceptors=[interceptor])
    assert running.call(f"{kind}UnaryUnary", b"x", metadata=(("k", "v"),)) == b"x"
    assert list(stream(running, f"{kind}StreamStream", [b"a", b"b"])) == [b"a", b"b"]
    assert interceptor.seen == [(f"{kind}UnaryUnary", "v"), (f"{kind}StreamStream", None)]
    assert interceptor.threads == {"inferd-rpc-serial-0"}


def test_callback_handlers_stay_on_the_poll_thread(serve):
    """The handler that comes back is still ours: no thread of the pool is occupied by a call that waits."""
    running = serve(grpc_interceptors=[PassThrough()], blocking_threads=1)
    futures = [running.unary("Held").future(b"", timeout=TIMEOUT_S) for _ in range(5)]
    calls = [running.held.next() for _ in futures]
    for call in calls:
        assert call.reply(b"done")
    assert [future.result() for future in futures] == [b"done"] * 5


@SHAPES
@pytest.mark.parametrize("shape", ["UnaryUnary", "StreamStream"])
def test_one_that_refuses(serve, kind, shape):
    """Its handler decides how the call is served, be its shape another than the method's."""
    running = serve(grpc_interceptors=[Terminator()])
    call = stream(running, f"{kind}{shape}", [b"x"])
    with pytest.raises(grpc.RpcError) as error:
        next(call)
    assert (error.value.code(), error.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    assert running.recorder.next_code() is grpc.StatusCode.UNAUTHENTICATED


@SHAPES
def test_one_that_wraps_a_unary_handler(serve, kind):
    """Request and response go through the wrapper."""
    assert serve(grpc_interceptors=[Wrapper()]).call(f"{kind}UnaryUnary", b"x") == b"<x>"


@SHAPES
def test_one_that_wraps_a_stream(serve, kind):
    """Every message both ways goes through the wrapper, and the stream stays a conversation."""
    running = serve(grpc_interceptors=[Wrapper()])
    requests = Requests()
    call = stream(running, f"{kind}StreamStream", requests)
    for message in (b"a", b"b"):
        requests.put(message)
        assert next(call) == b"<" + message + b">"
    requests.put(None)
    assert list(call) == []
    assert ("echoed", "2") in call.trailing_metadata()


def test_two_of_them_nest(serve):
    """The first one is the outermost."""
    assert serve(grpc_interceptors=[Wrapper(), Wrapper()]).call("CallbackUnaryUnary", b"x") == b"<<x>>"


def test_a_wrapped_callback_handler_answers_as_it_would(serve):
    """Codes, details and metadata of an abort; a late answer is refused; annotations are those of the call."""
    running = serve(grpc_interceptors=[Wrapper()])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S, metadata=(("k", "v"),))
    call = running.held.next()
    call.annotations["who"] = "me"
    assert call.method == f"/{SERVICE}/Held"
    assert call.peer.startswith("ipv4:127.0.0.1:")
    assert dict(call.metadata)["k"] == "v"
    assert call.deadline > call.started_at
    assert call.auth_context()["security_level"] == [b"TSI_SECURITY_NONE"]
    assert call.abort(grpc.StatusCode.NOT_FOUND, "no", (("why", "so"),))
    assert not call.reply(b"late")
    assert (future.code(), future.details()) == (grpc.StatusCode.NOT_FOUND, "no")
    assert ("why", "so") in future.trailing_metadata()
    assert running.recorder.ends.get(timeout=TIMEOUT_S)[0].annotations == {"who": "me"}


def test_a_wrapped_callback_handler_with_illegal_metadata(serve):
    """Rule 12 holds behind a wrapper too."""
    running = serve(grpc_interceptors=[Wrapper()])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    with pytest.raises(ValueError, match="'Bad'"):
        running.held.next().reply(b"", (("Bad", "x"),))
    assert future.code() is grpc.StatusCode.INTERNAL


def test_a_wrapped_callback_handler_hears_of_a_cancel(serve):
    """And the thread that waits for its answer is given back."""
    running = serve(grpc_interceptors=[Wrapper()], blocking_threads=1)
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    gone = threading.Event()
    call.on_terminated(gone.set)
    future.cancel()
    assert gone.wait(TIMEOUT_S)
    assert not call.reply(b"late")
    assert running.call("CallbackUnaryUnary", b"x") == b"<x>"


def test_a_wrapped_stream_hears_of_a_cancel(serve):
    """The listener is told, and the thread that reads for it ends."""
    running = serve(grpc_interceptors=[Wrapper()])
    requests = Requests()
    requests.put(b"a")
    call = stream(running, "CallbackStreamStream", requests)
    assert next(call) == b"<a>"
    call.cancel()
    (listener,) = running.opened
    assert listener.terminated.wait(TIMEOUT_S)
    assert wait_idle(running.server)
    assert not listener.call.send(b"late")
    requests.put(None)


def test_a_wrapped_stream_is_held_back(serve):
    """Rule 11 holds behind a wrapper too: the caller reads nothing, so a bounded number of requests is taken."""
    running = serve(grpc_interceptors=[Wrapper()])
    requests = Requests()
    for _ in range(200):
        requests.put(bytes(256 * 1024))
    requests.put(None)
    call = stream(running, "CallbackStreamStream", requests)
    next(call)
    for _ in range(100):
        running.call("CallbackUnaryUnary")
    (listener,) = running.opened
    assert listener.received < 100
    assert sum(1 for _ in call) == 199


def test_a_wrapped_callback_handler_that_raises(serve, caplog):
    """INTERNAL and a fixed text, as without the wrapper."""
    error = serve(grpc_interceptors=[Wrapper()]).fail("CallbackRaises")
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "secret" in caplog.text


def test_an_interceptor_that_raises(serve, caplog):
    """The call is answered with a fixed text, and the next one comes through."""

    class Raising(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            if ("raise", "1") in details.invocation_metadata:
                raise_secret()
            return continuation(details)

    running = serve(grpc_interceptors=[Raising()])
    error = running.fail("CallbackUnaryUnary", metadata=(("raise", "1"),))
    assert (error.code(), error.details()) == (grpc.StatusCode.UNKNOWN, "the handler could not be found")
    assert "secret" in caplog.text
    assert caplog.records[0].request_id
    assert running.call("CallbackUnaryUnary", b"x") == b"x"


def test_an_unknown_method_behind_an_interceptor(serve):
    """None from the interceptors is an unknown method."""
    assert serve(grpc_interceptors=[Wrapper()]).fail("NoSuchMethod").code() is grpc.StatusCode.UNIMPLEMENTED


def test_interceptor_and_handler_share_context_variables(serve):
    """As gRPC promises: set in the interceptor, seen in the handler, and in no other call."""

    class Tagging(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            tag = dict(details.invocation_metadata).get("tag")
            if tag:
                TAG.set(tag)
            return continuation(details)

    handlers = {"Tag": grpc.unary_unary_rpc_method_handler(lambda request, context: TAG.get().encode())}
    running = serve(handlers, grpc_interceptors=[Tagging()])
    assert running.call("Tag", metadata=(("tag", "red"),)) == b"red"
    assert running.call("Tag") == b"unset"


def test_our_interceptors_come_first(serve):
    """What they refuse is not shown to standard ones."""

    class Refusing:
        def started(self, call):
            return CallRefusal(grpc.StatusCode.PERMISSION_DENIED, "no", (("why", "so"),))

        def finished(self, call, code, details):
            pass

    standard = PassThrough()
    running = serve(interceptors=[Refusing()], grpc_interceptors=[standard])
    error = running.fail("CallbackUnaryUnary")
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert ("why", "so") in error.trailing_metadata()
    assert standard.seen == []


def test_a_cancel_while_an_interceptor_is_at_work(serve):
    """The handler is not called for a caller that is gone, and the next caller is served."""
    begun, release = threading.Event(), threading.Event()

    class Slow(grpc.ServerInterceptor):
        def intercept_service(self, continuation, details):
            if details.method.endswith("Held"):
                begun.set()
                release.wait(TIMEOUT_S)
            return continuation(details)

    running = serve(grpc_interceptors=[Slow()], max_inflight_unary=1)
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    assert begun.wait(TIMEOUT_S)
    future.cancel()
    assert running.recorder.next_code() is grpc.StatusCode.CANCELLED
    release.set()
    assert running.call("CallbackUnaryUnary", b"x") == b"x"
    assert running.held.calls.empty()
