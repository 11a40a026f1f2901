"""Handlers that are called back on the poll thread, in the shape of ordinary gRPC handlers."""

from typing import Any

import grpc

from inferd.rpc.calls import StreamHandler, UnaryHandler


class _CallbackHandler(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """What grpcio's registration code expects of a handler, without a behavior that could block a thread."""

    request_deserializer = None
    response_serializer = None
    unary_unary = None
    unary_stream = None
    stream_unary = None
    stream_stream = None


class CallbackUnaryHandler(_CallbackHandler):
    """A unary method whose handler is called with the request and answers through the call, at any later time."""

    request_streaming = False
    response_streaming = False

    def __init__(self, callback: UnaryHandler) -> None:
        self.callback = callback


class CallbackStreamHandler(_CallbackHandler):
    """A streaming method whose handler gets the call and returns the listener for its messages."""

    request_streaming = True
    response_streaming = True

    def __init__(self, callback: StreamHandler) -> None:
        self.callback = callback


def callback_unary(handler: UnaryHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of one request and one answer; ``handler`` is called on the poll thread and must not block."""
    return CallbackUnaryHandler(handler)


def callback_stream(handler: StreamHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of any streaming shape; ``handler`` is called on the poll thread and must not block.

    It gets the call before the first message, which it asks for by ``call.read()``.
    """
    return CallbackStreamHandler(handler)
