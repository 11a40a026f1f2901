"""The streams of a server that are open, to end them when it drains."""

import weakref
from typing import Protocol


class Drainable(Protocol):
    """A stream of requests."""

    def drain(self) -> None:
        """Answer the open requests, reject new ones, then end."""
        ...


class OpenStreams:
    """The open streams, for draining; on the poll thread only. A stream is removed when its call is freed."""

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[Drainable] = weakref.WeakSet()
        self._draining = False

    def add(self, stream: Drainable) -> None:
        """Add a new stream; it ends at once if the server is draining."""
        self._streams.add(stream)
        if self._draining:
            stream.drain()

    def drain(self) -> None:
        """Drain every stream, those added later as well."""
        self._draining = True
        for stream in list(self._streams):
            stream.drain()
