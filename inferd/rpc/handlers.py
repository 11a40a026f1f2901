"""Handlers that are called back on the poll thread, in the shape of ordinary gRPC handlers.

They go wherever a `grpc.RpcMethodHandler` goes, so that a standard interceptor can wrap one without knowing: its
``unary_unary`` or ``stream_stream`` is then called in a thread that may block, and bridges to the callbacks.
"""

from typing import Any

import grpc

from inferd.rpc.bridge import bridge_stream, bridge_unary
from inferd.rpc.calls import StreamHandler, UnaryHandler


class CallbackUnaryHandler(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """A unary method whose handler is called with the request and answers through the call, at any later time."""

    def __init__(self, callback: UnaryHandler) -> None:
        self.callback = callback
        self.request_streaming = False
        self.response_streaming = False
        self.request_deserializer = None
        self.response_serializer = None
        self.unary_unary = bridge_unary(callback)
        self.unary_stream = None
        self.stream_unary = None
        self.stream_stream = None


class CallbackStreamHandler(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs only
    """A streaming method whose handler gets the call and returns who is told of its messages."""

    def __init__(self, callback: StreamHandler) -> None:
        self.callback = callback
        self.request_streaming = True
        self.response_streaming = True
        self.request_deserializer = None
        self.response_serializer = None
        self.unary_unary = None
        self.unary_stream = None
        self.stream_unary = None
        self.stream_stream = bridge_stream(callback)


def callback_unary(handler: UnaryHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of one request and one answer; ``handler`` is called on the poll thread and must not block."""
    return CallbackUnaryHandler(handler)


def callback_stream(handler: StreamHandler) -> "grpc.RpcMethodHandler[Any, Any]":
    """Make a method of any streaming shape; ``handler`` is called on the poll thread and must not block.

    It gets the call before the first message, which it asks for by ``call.read()``.
    """
    return CallbackStreamHandler(handler)
