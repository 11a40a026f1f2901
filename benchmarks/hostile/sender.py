"""A process that sends hostile messages, so that building them does not delay the probes."""

import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc

from benchmarks.hostile.child import Child
from benchmarks.hostile.corpus import KINDS

#: Lower priority than the probes: the server is measured, not the scheduling of this machine.
NICE = 10
_WATCH_METHOD = "/Watch"
#: Messages are bytes already.
_AS_IT_IS = None
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """Status of a message, and when its call began and ended, on the clock of `time.monotonic`."""

    status: str
    details: str
    answers: int
    began: float
    ended: float


class Sender(Child):
    """A process that builds and sends messages one by one, each on its own connection."""

    def __init__(self, port: int, timeout_s: float) -> None:
        super().__init__(_serve, port, timeout_s)

    def make(self, kind: str, nbytes: int) -> int:
        """Build a message and return its size."""
        self.pipe.send((kind, nbytes))
        made: int = self.pipe.recv()
        return made

    def send(self, *, gzip: bool) -> Sent:
        """Send the last message built, and return when the call has ended."""
        self.pipe.send(gzip)
        sent: Sent = self.pipe.recv()
        return sent


def _serve(port: int, timeout_s: float, pipe: Connection) -> None:
    os.nice(NICE)
    while True:
        name, nbytes = pipe.recv()
        kind = KINDS[name]
        message = kind.build(nbytes)
        pipe.send(len(message))
        pipe.send(send(port, kind.method, message, timeout_s, gzip=pipe.recv()))


def send(port: int, method: str, message: bytes, timeout_s: float, *, gzip: bool = False) -> Sent:
    """Send one message on a new connection, and wait for the call to end."""
    compression = grpc.Compression.Gzip if gzip else None
    answers = 0
    with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
        # Every method is called as a streaming one, which is the same on the wire.
        began = time.monotonic()
        call = channel.stream_stream(method, _AS_IT_IS, _AS_IT_IS)(
            iter([message]), timeout=timeout_s, compression=compression
        )
        try:
            for _ in call:
                answers += 1
                if method.endswith(_WATCH_METHOD):
                    call.cancel()  # type: ignore[no-untyped-call]
        except grpc.RpcError:
            pass
        return Sent(
            status=call.code().name, details=call.details() or "", answers=answers, began=began, ended=time.monotonic()
        )
