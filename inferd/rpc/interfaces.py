"""What handlers and interceptors see of a call. The classes behind it are in ``unary_call`` and ``stream_call``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import grpc

from inferd.call_facts import CallFacts
from inferd.rpc.metadata import Metadata

#: Told how a call has ended, just before the status is sent, in the thread that ended the call.
Finisher = Callable[["Call", grpc.StatusCode, str], None]


class Call(Protocol):
    """One RPC. Everything here may be used in any thread, also after the RPC has ended."""

    @property
    def method(self) -> str:
        """``/package.Service/Name``."""
        ...

    @property
    def peer(self) -> str:
        """The caller's address as gRPC writes it, for example ``ipv4:10.0.0.7:53124``."""
        ...

    @property
    def raw_peer(self) -> bytes:
        """The same as gRPC's core writes it, for those who need it of every call."""
        ...

    @property
    def metadata(self) -> Metadata:
        """What the caller sent along; bytes for keys that end in ``-bin``."""
        ...

    @property
    def deadline(self) -> float:
        """When the caller stops waiting, on the monotonic clock in seconds; ``math.inf`` for never."""
        ...

    @property
    def started_at(self) -> float:
        """When the call was accepted, on the monotonic clock in seconds."""
        ...

    @property
    def ended_at(self) -> float:
        """When the call was answered or cut off, on the monotonic clock in seconds; ``math.inf`` before that."""
        ...

    @property
    def facts(self) -> CallFacts:
        """What nearly every call has to tell."""
        ...

    @property
    def annotations(self) -> dict[str, object]:
        """What else interceptors and handlers leave for each other, where they have anything to leave."""
        ...

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what the connection proves of the caller, for example ``peer_spiffe_id``."""
        ...

    def add_trailing_metadata(self, pairs: Metadata) -> None:
        """Have ``pairs`` go out with the status, after the handler's own and whatever the status is.

        Meant for interceptors: the last moment is their ``finished``. To be called by one thread at a time. Raises
        ValueError for what is illegal, and then adds nothing.
        """
        ...

    def on_finished(self, finisher: Finisher) -> None:
        """Have ``finisher`` told when the call has ended, ahead of the interceptors; at once, if it had ended already.

        It must not block or raise. On the poll thread only, and of a unary call before another thread may answer it.
        Meant for what only some calls need: an interceptor's ``finished`` costs time for each of them.
        """
        ...

    def expect_small_message(self) -> None:
        """End the call if its first message is not here within 5 s or if one is larger than 4 KiB; on the poll thread.

        Meant for the ``started`` of interceptors, for callers who need not say who they are: what has come of a message
        takes memory, and reading it takes time.
        """
        ...

    def on_terminated(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called once if the call ends without our answer: cancelled, expired, connection lost.

        It is called on the poll thread and must not block; at once, if that has happened already.
        """
        ...


class UnaryCall(Call, Protocol):
    """One request, one answer. Of all ``reply`` and ``abort``, from any threads, only the first has an effect."""

    def reply(self, message: bytes, trailing_metadata: Metadata = ()) -> bool:
        """Answer with ``message`` and OK. Returns False if the call had ended.

        Raises ValueError for illegal metadata; the caller is then told INTERNAL.
        """
        ...

    def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Metadata = ()) -> bool:
        """Answer with a status only. Returns False if the call had ended. Raises as ``reply`` does."""
        ...


class StreamCall(Call, Protocol):
    """Requests and answers in streams. Any thread may use any of the methods; none of them blocks."""

    def read(self) -> None:
        """Ask for one more message; it goes to the listener. Asking again before it came changes nothing.

        While too many answers wait to be sent because the caller does not read them, the message is not asked of
        the core, so that flow control holds that caller back; it is as soon as enough of them have been sent.
        """
        ...

    def send(self, message: bytes) -> bool:
        """Send ``message`` after those before it. Returns False if the call has ended or was finished."""
        ...

    def finish(
        self,
        code: grpc.StatusCode = grpc.StatusCode.OK,
        details: str = "",
        trailing_metadata: Metadata = (),
    ) -> bool:
        """End the call, after all that was sent. Returns False if it had ended. Raises as ``UnaryCall.reply`` does."""
        ...


class StreamListener(Protocol):
    """Is told what happens on a stream; on the poll thread, so nothing here may block."""

    def on_message(self, message: bytes, /) -> None:
        """A message that ``read`` asked for has come."""
        ...

    def on_half_close(self) -> None:
        """The caller will send no more; comes after a ``read``, at most once."""
        ...

    def on_terminated(self) -> None:
        """The call ended without our ``finish``; comes at most once."""
        ...


UnaryHandler = Callable[[UnaryCall, bytes], None]
StreamHandler = Callable[[StreamCall], StreamListener]
