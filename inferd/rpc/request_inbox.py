"""Where a blocking handler waits for the requests of its stream, and for its answers to be sent."""

import threading
from collections.abc import Callable
from typing import Any

import grpc

from inferd.rpc.stream_call import CoreStreamCall

Request = Any  # what a handler takes, of another's making


class CallEndedError(grpc.RpcError):
    """Unwinds a handler whose caller is gone."""


class RequestInbox:
    """The listener of a call to a blocking handler, and the iterator over its requests.

    Threads: the listener's methods are called on the poll thread and only take a lock that nobody holds for long;
    ``__next__`` and ``wait_until_sent`` block the handler's thread. Invariant: at most one message is in here, as a
    message is only asked for when the handler wants it.
    """

    def __init__(self, call: CoreStreamCall, deserialize: Callable[[bytes], Request]) -> None:
        self._call = call
        self._deserialize = deserialize
        self._changed = threading.Condition()
        self._message: bytes | None = None
        self._half_closed = False
        self._terminated = False
        call.on_sent = self._on_sent

    def on_message(self, message: bytes, /) -> None:
        """See `StreamListener.on_message`."""
        with self._changed:
            self._message = message
            self._changed.notify_all()

    def on_half_close(self) -> None:
        """See `StreamListener.on_half_close`."""
        with self._changed:
            self._half_closed = True
            self._changed.notify_all()

    def on_terminated(self) -> None:
        """See `StreamListener.on_terminated`."""
        with self._changed:
            self._terminated = True
            self._changed.notify_all()

    def __iter__(self) -> "RequestInbox":
        return self

    def __next__(self) -> Request:
        """Wait for the next request. Raises `CallEndedError` if the caller is gone."""
        self._call.read()
        with self._changed:
            self._changed.wait_for(self._may_go_on)
            message, self._message = self._message, None
            if self._terminated or (message is None and not self._half_closed):
                raise CallEndedError
        if message is None:
            raise StopIteration
        return self._deserialize(message)

    def next(self) -> Request:
        """Do as ``__next__``; grpcio's own iterator has this too."""
        return next(self)

    def wait_until_sent(self) -> bool:
        """Wait until nothing waits to be sent any more. Returns False if the call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: not self._call.waiting_messages or self._call.has_ended)
        return not self._call.has_ended

    def _may_go_on(self) -> bool:
        return self._message is not None or self._half_closed or self._call.has_ended

    def _on_sent(self) -> None:
        with self._changed:
            self._changed.notify_all()
