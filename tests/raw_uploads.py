"""Uploads in raw HTTP/2 that can stop at any byte, as no gRPC client can.

Only the necessary part of the protocol: one call per connection, uncompressed headers, the sender's flow control, and a
text search in the received headers and trailers instead of decoding them.
"""

import select
import socket
import struct
import time
from typing import Self

from tests.patience import PATIENCE_S

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_STREAM = 1
_DEFAULT_WINDOW = 65535
_MAX_FRAME = 16384


class RawUpload:
    """One call to ``method`` with a message of ``size`` bytes; `send` sends a part of it."""

    def __init__(
        self,
        address: str,
        method: str,
        size: int,
        *,
        compressed: bool = False,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> None:
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
        self._received = bytearray()
        self._initial_window = _DEFAULT_WINDOW
        self._windows = {0: _DEFAULT_WINDOW, _STREAM: _DEFAULT_WINDOW}
        #: The received header and trailer blocks, undecoded.
        self.headers = b""
        self.has_ended = False
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", method), (":authority", address), ("te", "trailers"),
            ("content-type", "application/grpc"), *([("grpc-encoding", "gzip")] if compressed else []), *metadata,
        ]  # fmt: skip
        block = b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_HEADERS, _END_HEADERS, _STREAM, block))
        self._prefix = struct.pack(">BI", compressed, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, count: int, *, within_s: float = 30.0, end: bool = False, content: bytes | None = None) -> int:
        """Send ``count`` bytes of the message, or ``content``; returns how many the peer accepted within the time."""
        message = self._prefix + (bytes(count) if content is None else content)
        self._prefix = b""
        data, sent = memoryview(message), 0
        until = time.monotonic() + within_s
        while sent < len(data) and not self.has_ended and time.monotonic() < until:
            room = min(self._windows.values())
            if room <= 0:
                self.receive(0.05)
                continue
            chunk = data[sent : sent + min(room, _MAX_FRAME)]
            is_last = end and sent + len(chunk) == len(data)
            try:
                self._socket.sendall(_frame(_DATA, _END_STREAM if is_last else 0, _STREAM, bytes(chunk)))
            except OSError:
                self.has_ended = True
                break
            sent += len(chunk)
            for stream in self._windows:
                self._windows[stream] -= len(chunk)
            self.receive(0.0)
        return sent

    def wait_ended(self, within_s: float) -> bool:
        """Wait until the peer has ended the call; returns False if it has not."""
        until = time.monotonic() + within_s
        while not self.has_ended and (left_s := until - time.monotonic()) > 0:
            self.receive(left_s)
        return self.has_ended

    def receive(self, timeout_s: float) -> None:
        """Read what has arrived, after waiting for it."""
        while not self.has_ended and select.select([self._socket], [], [], timeout_s)[0]:
            timeout_s = 0.0
            try:
                received = self._socket.recv(65536)
            except OSError:
                received = b""
            if not received:
                self.has_ended = True
                return
            self._received += received
            self._take_frames()

    def _take_frames(self) -> None:
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            if len(self._received) < 9 + length:
                return
            kind, flags = self._received[3], self._received[4]
            stream = int.from_bytes(self._received[5:9], "big") & 0x7FFFFFFF
            payload = bytes(self._received[9 : 9 + length])
            del self._received[: 9 + length]
            self._take(kind, flags, stream, payload)

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            for name, value in struct.iter_unpack(">HI", payload):
                if name == _INITIAL_WINDOW_SIZE:
                    self._windows[_STREAM] += value - self._initial_window
                    self._initial_window = value
            self._answer(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._answer(_frame(_PING, _ACK, 0, payload))
        elif kind == _WINDOW_UPDATE and stream in self._windows:
            self._windows[stream] += int.from_bytes(payload, "big") & 0x7FFFFFFF
        elif kind == _HEADERS:
            self.headers += payload
            self.has_ended |= bool(flags & _END_STREAM)
        elif kind in (_RST_STREAM, _GOAWAY):
            self.has_ended = True

    def _answer(self, frame: bytes) -> None:
        try:
            self._socket.sendall(frame)
        except OSError:
            self.has_ended = True


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) < 127, "a longer one takes more than a byte for its length"
    return bytes((len(encoded),)) + encoded
