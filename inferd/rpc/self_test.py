"""One loopback call, to test the installed grpcio before a server relies on its private surface."""

from functools import cache

import grpc

from inferd.rpc.core import IncompatibleGrpcioError
from inferd.rpc.interfaces import UnaryCall, callback_unary
from inferd.rpc.server import Server, stop_and_wait

_TIMEOUT_S = 20.0
_METHOD = "/inferd.rpc.SelfTest/Echo"
_PROBE = b"probe"


@cache
def check_grpcio() -> None:
    """Serve one call over loopback, once in a process unless it fails. Raises `IncompatibleGrpcioError`."""
    try:
        answer = _call_self()
    except Exception as error:
        raise IncompatibleGrpcioError("failed the self-test") from error
    if answer != _PROBE:
        raise IncompatibleGrpcioError(f"failed the self-test: sent {_PROBE!r}, got {answer!r}")


def _call_self() -> bytes:
    server = Server(armed_calls=1, blocking_threads=1)
    server.add_registered_method_handlers("inferd.rpc.SelfTest", {"Echo": callback_unary(_echo)})
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=(("grpc.enable_http_proxy", 0),)) as channel:
            answer: bytes = channel.unary_unary(_METHOD, None, None)(_PROBE, timeout=_TIMEOUT_S)
            return answer
    finally:
        stop_and_wait(server, _TIMEOUT_S)


def _echo(call: UnaryCall, message: bytes) -> None:
    call.reply(message)
