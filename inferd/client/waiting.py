"""Which calls wait for an answer on a stream that they share. Pure."""

from asyncio import CancelledError
from itertools import count
from typing import Generic, TypeVar

import grpc

from inferd._generated.inferd.v1 import inference_pb2 as pb
from inferd.client import messages
from inferd.client.errors import Cancelled, InferdError, Unavailable, from_rpc_error
from inferd.client.results import Result

#: What a call waits for: the end of its request, or what became of the stream.
Outcome = pb.InferResult | InferdError

Reply = TypeVar("Reply")


class Waiting(Generic[Reply]):
    """Where the outcome of each request that was sent is to go, by the id that it has on the wire.

    A call that has given up stays until the server has answered it, so that nobody else gets that answer.
    """

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._numbers = count()

    def enter(self, request_id: str, reply: Reply) -> str:
        """Add a call and return the id to send: the caller's own, or made unlike all others in flight."""
        wire_id = request_id
        while not wire_id or wire_id in self._replies:
            wire_id = f"{request_id}#{next(self._numbers)}"
        self._replies[wire_id] = reply
        return wire_id

    def leave(self, wire_id: str) -> Reply | None:
        """Return where the answer goes; None for one that nobody asked for, which is no reason to fail the others."""
        return self._replies.pop(wire_id, None)

    def leave_all(self) -> list[Reply]:
        """Return where the end of the stream goes."""
        replies, self._replies = list(self._replies.values()), {}
        return replies


def broken(error: grpc.RpcError | CancelledError | None) -> InferdError:
    """Say how the stream ended, each time as an exception of its own, because every call raises one."""
    if error is None:
        return Unavailable("the server ended the stream")
    if isinstance(error, CancelledError):
        return Cancelled("the client was closed")
    translated = from_rpc_error(error)
    translated.__context__ = error
    return translated


def answer(outcome: Outcome, request_id: str) -> Result:
    """Return the result that a call waited for, or raise what came instead."""
    if isinstance(outcome, pb.InferResult):
        end = messages.stream_outcome(outcome, request_id)
        if isinstance(end, Result):
            return end
        raise end
    raise outcome from None
