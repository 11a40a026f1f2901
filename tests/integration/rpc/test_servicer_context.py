"""The servicer context of ordinary handlers."""

import contextvars
import logging
import threading
from concurrent import futures

import grpc
import pytest

from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Requests, wait_idle

NOT_FOUND = grpc.StatusCode.NOT_FOUND


def unary(behavior, **converters):
    return {"Method": grpc.unary_unary_rpc_method_handler(behavior, **converters)}


def stream(behavior):
    return {"Method": grpc.stream_stream_rpc_method_handler(behavior)}


def open_stream(running, requests):
    return running.channel.stream_stream(f"/{SERVICE}/Method")(iter(requests), timeout=TIMEOUT_S)


def test_caller(serve):
    """Peer, metadata, deadline; no identity without TLS."""
    seen = {}

    def look(request, context):
        seen.update(
            peer=context.peer(),
            metadata=dict(context.invocation_metadata()),
            remaining=context.time_remaining(),
            identities=context.peer_identities(),
            identity_key=context.peer_identity_key(),
            auth=context.auth_context(),
            active=context.is_active(),
        )
        return b""

    running = serve(unary(look))
    running.call("Method", timeout=50.0, metadata=(("k", "v"),))
    assert seen.pop("peer").startswith("ipv4:127.0.0.1:")
    assert seen.pop("metadata")["k"] == "v"
    assert 40.0 < seen.pop("remaining") <= 50.5
    assert seen.pop("auth")["security_level"] == [b"TSI_SECURITY_NONE"]
    assert seen == {"identities": None, "identity_key": None, "active": True}


def test_no_deadline_is_none(serve):
    """Per gRPC's documentation."""
    remaining = []
    running = serve(unary(lambda request, context: remaining.append(context.time_remaining()) or b""))
    running.call("Method", timeout=None)
    assert remaining == [None]


def test_status_and_metadata_of_a_normal_return(serve):
    """They are sent, and can be read back."""
    seen = []

    def behave(request, context):
        context.send_initial_metadata((("first", "1"),))
        context.set_trailing_metadata((("last", "2"),))
        context.set_code(NOT_FOUND)
        context.set_details("nothing here")
        seen.append((context.code(), context.details(), context.trailing_metadata()))
        return b"ignored"

    running = serve(unary(behave))
    future = running.unary("Method").future(b"", timeout=TIMEOUT_S)
    assert (future.code(), future.details()) == (NOT_FOUND, "nothing here")
    assert ("first", "1") in future.initial_metadata()
    assert ("last", "2") in future.trailing_metadata()
    assert seen == [(NOT_FOUND, "nothing here", (("last", "2"),))]


def test_abort(serve):
    """It unwinds the handler and logs nothing."""

    def behave(request, context):
        context.set_trailing_metadata((("last", "2"),))
        context.abort(NOT_FOUND, "gone")

    error = serve(unary(behave)).fail("Method")
    assert (error.code(), error.details()) == (NOT_FOUND, "gone")
    assert ("last", "2") in error.trailing_metadata()


def test_swallowed_abort_counts(serve):
    """A handler that catches everything cannot turn it into an answer."""

    def behave(request, context):
        try:
            context.abort(NOT_FOUND, "gone")
        except Exception:  # noqa: BLE001  that is the case
            return b"answer"

    assert serve(unary(behave)).fail("Method").code() is NOT_FOUND


def test_abort_with_ok_is_unknown(serve, caplog):
    """And logged."""
    error = serve(unary(lambda request, context: context.abort(grpc.StatusCode.OK, "fine"))).fail("Method")
    assert error.code() is grpc.StatusCode.UNKNOWN
    assert "aborted with OK" in caplog.text
    assert caplog.records[0].request_id


def test_abort_with_status(serve):
    """Code, details and metadata in one."""

    class Status(grpc.Status):
        code = NOT_FOUND
        details = "gone"
        trailing_metadata = (("last", "2"),)

    error = serve(unary(lambda request, context: context.abort_with_status(Status()))).fail("Method")
    assert (error.code(), error.details()) == (NOT_FOUND, "gone")
    assert ("last", "2") in error.trailing_metadata()


def test_invalid_code(serve):
    """The call ends nevertheless."""
    running = serve(unary(lambda request, context: context.set_code(5) or b""))
    assert running.fail("Method").code() is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    "misuse",
    [
        lambda context: context.send_initial_metadata((("Bad", "x"),)),
        lambda context: context.set_trailing_metadata((("Bad", "x"),)),
        lambda context: [context.send_initial_metadata(()) for _ in range(2)],
    ],
)
def test_misuse_of_metadata_ends_the_call(serve, misuse):
    """Illegal metadata, or headers twice, raise in the handler and do not hang the caller."""
    errors = []

    def behave(request, context):
        try:
            misuse(context)
        except ValueError as error:
            errors.append(error)
            raise

    assert serve(unary(behave)).fail("Method").code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
    assert len(errors) == 1


def test_accepts_compression_calls(serve):
    """They have no effect."""

    def behave(request, context):
        context.set_compression(grpc.Compression.Gzip)
        context.disable_next_message_compression()
        return request

    assert serve(unary(behave)).call("Method", b"x") == b"x"


def test_converters(serve):
    """They convert requests and responses, in the handler's thread."""
    threads = set()

    def decode(data):
        threads.add(threading.current_thread().name.rstrip("0123456789"))
        return data.decode()

    running = serve(
        unary(lambda request, _: request.upper(), request_deserializer=decode, response_serializer=str.encode)
    )
    assert running.call("Method", b"abc") == b"ABC"
    assert threads == {"inferd-rpc-handler-"}


@pytest.mark.parametrize(
    ("converters", "code", "details"),
    [
        (
            {"request_deserializer": lambda _: 1 / 0},
            grpc.StatusCode.INVALID_ARGUMENT,
            "the request could not be deserialized",
        ),
        ({"response_serializer": lambda _: 1 / 0}, grpc.StatusCode.INTERNAL, "the response could not be serialized"),
        ({"response_serializer": lambda _: None}, grpc.StatusCode.INTERNAL, "the response could not be serialized"),
    ],
)
def test_failed_converters(serve, caplog, converters, code, details):
    """The caller gets a fixed text, and a status that shows whose fault it is."""
    caplog.set_level(logging.INFO, "inferd.rpc")
    error = serve(unary(lambda request, _: request, **converters)).fail("Method")
    assert (error.code(), error.details()) == (code, details)
    assert caplog.records[0].request_id


def test_callbacks_run_after_the_call(serve):
    """However it ended; a later ``add_callback`` returns False."""
    over, contexts = threading.Event(), []

    def behave(request, context):
        contexts.append(context)
        assert context.add_callback(over.set)
        return b""

    running = serve(unary(behave))
    running.call("Method")
    assert over.wait(TIMEOUT_S)
    assert not contexts[0].is_active()
    assert not contexts[0].add_callback(over.clear)
    assert over.is_set()


def test_handlers_may_wait_for_their_callbacks(serve):
    """Even if they occupy every thread."""
    begun = threading.Event()
    ended = threading.Event()

    def behave(request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        begun.set()
        assert gone.wait(TIMEOUT_S)
        ended.set()
        return b""

    running = serve(unary(behave), blocking_threads=1)
    future = running.unary("Method").future(b"", timeout=TIMEOUT_S)
    assert begun.wait(TIMEOUT_S)
    future.cancel()
    assert ended.wait(TIMEOUT_S)


def test_cancel_by_the_handler(serve):
    """The call ends as if the caller had cancelled it."""
    running = serve(unary(lambda request, context: context.cancel() or b""))
    assert running.fail("Method").code() is grpc.StatusCode.CANCELLED


def test_cancel_unwinds_a_handler_that_waits_for_requests(serve, caplog):
    """The iterator raises `grpc.RpcError`, and nothing is logged."""
    raised = []
    begun, ended = threading.Event(), threading.Event()

    def behave(requests, context):
        try:
            for _ in requests:
                begun.set()
            yield b"all"
        except grpc.RpcError as error:
            raised.append(error)
            raise
        finally:
            ended.set()

    running = serve(stream(behave))
    requests = Requests()
    requests.put(b"x")
    call = open_stream(running, requests)
    assert begun.wait(TIMEOUT_S)
    call.cancel()
    assert ended.wait(TIMEOUT_S)
    assert len(raised) == 1
    assert wait_idle(running.server)
    assert not [record for record in caplog.records if record.name == "inferd.rpc"]
    requests.put(None)


def test_abort_in_the_middle_of_a_stream(serve):
    """Messages yielded before arrive, then the status."""

    def behave(requests, context):
        yield b"one"
        context.abort(NOT_FOUND, "no more")

    call = open_stream(serve(stream(behave)), [])
    assert next(call) == b"one"
    with pytest.raises(grpc.RpcError):
        next(call)
    assert (call.code(), call.details()) == (NOT_FOUND, "no more")


def test_handler_with_its_own_pool(serve):
    """``experimental_thread_pool``, as in grpcio's server."""
    with futures.ThreadPoolExecutor(1, thread_name_prefix="own") as pool:

        def behave(request, context):
            return threading.current_thread().name.encode()

        behave.experimental_thread_pool = pool
        assert serve(unary(behave)).call("Method").startswith(b"own")


def test_context_variables_belong_to_one_call(serve):
    """What a handler sets is not seen by the next call that its thread serves."""
    variable = contextvars.ContextVar("variable", default=b"unset")

    def handler(request, context):
        value = variable.get()
        variable.set(request)
        return value

    running = serve({"Set": grpc.unary_unary_rpc_method_handler(handler)}, blocking_threads=1)
    assert [running.call("Set", b"red"), running.call("Set", b"blue")] == [b"unset", b"unset"]


def test_rejects_calls_above_the_bound_of_the_pool(serve, monkeypatch):
    """No queue is unbounded."""
    monkeypatch.setattr("inferd.rpc.blocking._MAX_WAITING", 2)
    begun, release = threading.Event(), threading.Event()

    def behave(request, context):
        begun.set()
        release.wait(TIMEOUT_S)
        return b""

    running = serve(unary(behave), blocking_threads=1)
    first = running.unary("Method").future(b"", timeout=TIMEOUT_S)
    assert begun.wait(TIMEOUT_S)
    others = [running.unary("Method").future(b"", timeout=TIMEOUT_S) for _ in range(5)]
    refused = [running.recorder.next_code() for _ in range(3)]
    release.set()
    assert refused == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    assert first.result() == b""
    assert sorted(future.code().name for future in others) == ["OK"] * 2 + ["RESOURCE_EXHAUSTED"] * 3


def test_logs_exceptions_of_handlers(serve, caplog):
    """At error level, on the package's own logger."""

    def behave(request, context):
        context.set_code(NOT_FOUND)
        raise RuntimeError("secret")

    error = serve(unary(behave)).fail("Method")
    assert (error.code(), error.details()) == (NOT_FOUND, "the handler failed")
    assert [(record.name, record.levelno) for record in caplog.records] == [("inferd.rpc", logging.ERROR)]
