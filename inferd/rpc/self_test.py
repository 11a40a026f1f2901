"""Tries out the installed grpcio before a server relies on it."""

import threading

import grpc

from inferd.rpc.calls import UnaryCall
from inferd.rpc.core import IncompatibleGrpcioError
from inferd.rpc.engine import Engine
from inferd.rpc.handlers import callback_unary

_TIMEOUT_S = 20.0
_METHOD = "/inferd.rpc.SelfTest/Echo"
_PROBE = b"probe"

_lock = threading.Lock()
_passed = False


def check_core_once() -> None:
    """Make one call to a server of our own, if that was not done in this process. Raises `IncompatibleGrpcioError`."""
    global _passed  # noqa: PLW0603  it is about the process
    with _lock:
        if not _passed:
            check_core()
            _passed = True


def check_core() -> None:
    """Make one call to a server of our own over the loopback. Raises `IncompatibleGrpcioError`."""
    try:
        answer = _call_ourselves()
    except Exception as error:
        raise IncompatibleGrpcioError("failed the self-test") from error
    if answer != _PROBE:
        raise IncompatibleGrpcioError(f"failed the self-test: sent {_PROBE!r}, got {answer!r}")


def _call_ourselves() -> bytes:
    engine = Engine(
        interceptors=(),
        options=(),
        armed_calls=1,
        blocking_threads=1,
        max_inflight_unary=None,
        express_methods=(),
    )
    engine.methods.add_registered("inferd.rpc.SelfTest", {"Echo": callback_unary(_echo)})
    port = engine.bind("127.0.0.1:0", None)
    engine.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
            answer: bytes = channel.unary_unary(_METHOD, None, None)(_PROBE, timeout=_TIMEOUT_S)
            return answer
    finally:
        engine.stop_and_wait(_TIMEOUT_S)


def _echo(call: UnaryCall, message: bytes) -> None:
    call.reply(message)
