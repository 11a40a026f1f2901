"""A server with hand-written HTTP/2 frames, for behaviour that gRPC's own servers rarely or never show."""

import socket
import threading
from types import TracebackType
from typing import Self

DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM = ACK = 0x1
END_HEADERS, PADDED = 0x4, 0x8
PREFACE_BYTES = 24
ALLOWED_STREAMS = 2
MAX_CONCURRENT_STREAMS = b"\x00\x03"

# Header fields in every form: table size, indexed, literal with and without indexing, Huffman-coded.
TABLE_SIZE_0 = b"\x20"
STATUS_200 = b"\x88"
CONTENT_TYPE = b"\x5f\x10application/grpc"
CODED_GRPC_STATUS_0 = b"\x40\x88" + bytes.fromhex("9acac8b21234da8f") + b"\x81\x07"
GRPC_STATUS_8 = b"\x00\x0bgrpc-status\x018"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def good_answer(stream: int) -> bytes:
    """Return an OK answer in padded DATA, with Huffman-coded trailers in two frames."""
    message = b"\x00\x00\x00\x00\x04pong"
    return (
        frame(HEADERS, END_HEADERS, stream, TABLE_SIZE_0 + STATUS_200 + CONTENT_TYPE)
        + frame(DATA, PADDED, stream, b"\x03" + message[:7] + bytes(3))
        + frame(DATA, 0, stream, message[7:])
        + frame(HEADERS, END_STREAM, stream, CODED_GRPC_STATUS_0[:5])
        + frame(CONTINUATION, END_HEADERS, stream, CODED_GRPC_STATUS_0[5:])
    )


def refusal(stream: int) -> bytes:
    """Return RESOURCE_EXHAUSTED without a message."""
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200 + GRPC_STATUS_8)


def reset(stream: int) -> bytes:
    """Return INTERNAL_ERROR for the stream."""
    return frame(RST_STREAM, 0, stream, b"\x00\x00\x00\x02")


class ScriptedPeer:
    """Answers one connection in turn: OK, a refusal, a reset; pings before each; and hangs up after ``answers``.

    It allows two streams at a time, answers when there are two, and notes in ``most_open`` how many there were and in
    ``pings`` how many pings came back.
    """

    def __init__(self, *, answers: int) -> None:
        self.pings = 0
        self.most_open = 0
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    @property
    def target(self) -> str:
        """Return the address to call."""
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as received:
            received.read(PREFACE_BYTES)
            connection.sendall(frame(SETTINGS, 0, 0, MAX_CONCURRENT_STREAMS + ALLOWED_STREAMS.to_bytes(4, "big")))
            answered = opened = 0
            asked: list[int] = []
            while answered < self._answers and (head := received.read(9)):
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big")
                received.read(size)
                self.pings += kind == PING and flags == ACK
                opened += kind == HEADERS
                self.most_open = max(self.most_open, opened - answered)
                asked += [stream] if kind == DATA and flags & END_STREAM else []
                if len(asked) == ALLOWED_STREAMS:
                    for asked_stream in asked:
                        answer = (good_answer, refusal, reset)[answered % 3]
                        connection.sendall(frame(PING, 0, 0, b"hereiam!") + answer(asked_stream))
                        answered += 1
                    asked.clear()
            connection.shutdown(socket.SHUT_WR)
            while received.read(4096):
                pass
