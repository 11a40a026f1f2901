"""Requests of a stream put together into messages. Pure."""

from collections import deque

from inferd import wire
from inferd._generated.inferd.v1 import inference_pb2 as pb

#: Requests share a message up to about this size, which every server takes; a larger one has a message of its own.
MESSAGE_BYTES = 1024 * 1024
#: And up to this many, as servers bound how many they take.
MESSAGE_REQUESTS = 256

_REQUESTS = wire.tag(pb.StreamInferRequest, "requests")


class Pack:
    """Requests that wait for their message, in their order."""

    def __init__(self) -> None:
        self._requests: deque[bytes] = deque()
        self._nbytes = 0

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._requests)

    @property
    def full(self) -> bool:
        """Whether there is enough for a message."""
        return self._nbytes >= MESSAGE_BYTES or len(self._requests) >= MESSAGE_REQUESTS

    def add(self, request: bytes) -> None:
        """Put a request, written as bytes, behind the others."""
        self._requests.append(request)
        self._nbytes += len(request)

    def take(self) -> bytes:
        """Take as many requests as share a message, at least one, and write the `StreamInferRequest`."""
        parts: list[bytes] = []
        room = MESSAGE_BYTES
        taken = 0
        while self._requests and taken < MESSAGE_REQUESTS and (not taken or len(self._requests[0]) <= room):
            taken += 1
            request = self._requests.popleft()
            room -= len(request)
            parts += wire.prefix(_REQUESTS, len(request)), request
        self._nbytes -= MESSAGE_BYTES - room
        return b"".join(parts)
