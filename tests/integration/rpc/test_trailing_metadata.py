"""Trailing metadata added by interceptors, for every kind of call and status."""

import grpc
import pytest

from inferd.rpc import Rejection
from tests.integration.rpc.support import SERVICE, TIMEOUT_S

OK = grpc.StatusCode.OK
ADDED = (("early", "1"), ("late", "2"), ("late-bin", b"\x00\xff"))


class Adding:
    """Adds metadata at the start and the end of each call."""

    def started(self, call):
        call.add_trailing_metadata((("early", "1"),))

    def finished(self, call, code, details):
        call.add_trailing_metadata((("late", "2"), ("late-bin", b"\x00\xff")))


class Refusing:
    """Rejects each call with metadata of its own."""

    def started(self, call):
        return Rejection(grpc.StatusCode.PERMISSION_DENIED, "no", (("own", "0"),))

    def finished(self, call, code, details):
        pass


def ended(call):
    """The status and the trailing metadata of a call, which may have messages or not."""
    code = call.code()
    return code, tuple((pair.key, pair.value) for pair in call.trailing_metadata())


def shapes(kind):
    return [f"{kind}{shape}" for shape in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")]


@pytest.mark.parametrize("method", [*shapes("Callback"), *shapes("Blocking")])
def test_added_to_every_shape_of_call(serve, method):
    """Of callback and ordinary handlers; it follows the handler's own."""
    call = serve(interceptors=[Adding()]).channel.stream_stream(f"/{SERVICE}/{method}")(iter([b"x"]), timeout=TIMEOUT_S)
    assert len(list(call)) == (3 if method.endswith("UnaryStream") else 1)
    own = (("echoed", "1"),) if method.endswith("StreamStream") else ()
    assert ended(call) == (OK, own + ADDED)


def test_handler_may_add_metadata(serve):
    """Before later metadata of interceptors, after that of its answer."""
    running = serve(interceptors=[Adding()])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    call.add_trailing_metadata((("handler", "h"),))
    call.reply(b"answer", (("own", "0"),))
    assert future.result() == b"answer"
    assert ended(future) == (OK, (("own", "0"), ADDED[0], ("handler", "h"), *ADDED[1:]))


def test_added_to_errors(serve):
    """The status, its text and the handler's metadata are unchanged."""
    running = serve(interceptors=[Adding()])
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    running.held.next().abort(grpc.StatusCode.FAILED_PRECONDITION, "näh", (("own", "0"),))
    assert ended(future) == (grpc.StatusCode.FAILED_PRECONDITION, (("own", "0"), *ADDED))
    assert future.details() == "näh"


@pytest.mark.parametrize("method", ["CallbackRaises", "BlockingRaises", "Missing"])
def test_added_without_an_answer_of_a_handler(serve, method):
    """It failed, or there is none."""
    running = serve(interceptors=[Adding()])
    code, trailing = ended(running.fail(method))
    assert code is not OK
    assert trailing == ADDED


def test_added_to_rejections(serve):
    """An inner interceptor rejects; outer ones may still add."""
    running = serve(interceptors=[Adding(), Refusing()])
    assert ended(running.fail("CallbackUnaryUnary")) == (
        grpc.StatusCode.PERMISSION_DENIED,
        (("own", "0"), *ADDED),
    )


def test_does_not_send_illegal_pairs(running):
    """The caller of the method gets ValueError; the call continues without them."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    with pytest.raises(ValueError, match="'Upper'"):
        call.add_trailing_metadata((("legal", "1"), ("Upper", "x")))
    call.reply(b"")
    assert ended(future) == (OK, ())


def test_adds_nothing_after_the_end(running):
    """It is no error."""
    future = running.unary("Held").future(b"", timeout=TIMEOUT_S)
    call = running.held.next()
    call.reply(b"")
    assert future.code() is OK
    call.add_trailing_metadata((("late", "1"),))
    assert ended(future) == (OK, ())
