"""A flood of unauthenticated callers: ``python -m tests.flood HOST:PORT CA_FILE PER_S``, until its input ends.

A separate process, so that it does not delay measurements. At the end it prints the number of callers of each kind.
"""

import itertools
import json
import select
import socket
import ssl
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import grpc

from tests.patience import PATIENCE_S

#: Each flood reaches them soon on any machine, so that floods of any speed take the same memory.
KEPT_OPEN = 100
_TIMEOUT_S = PATIENCE_S
_GARBAGE = bytes(range(256)) * 16
_BEGUN_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01"
_INFER = "/inferd.v1.InferenceService/Infer"


class UnauthenticatedCallers:
    """Connections without credentials; some stay open, up to a limit."""

    def __init__(self, address: str, ca_file: str) -> None:
        host, port = address.rsplit(":", 1)
        self._address = (host, int(port))
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._tls.set_alpn_protocols(["h2"])
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(Path(ca_file).read_bytes()))
        self._infer = channel.unary_unary(_INFER)
        self._staying: deque[socket.socket] = deque()
        self.kinds: list[Callable[[], None]] = [
            self.silent, self.half_a_handshake, self.garbage, self.whole_handshake, self.no_token, self.wrong_token,
        ]  # fmt: skip

    def silent(self) -> None:
        self._stay(self._connect())

    def half_a_handshake(self) -> None:
        caller = self._connect()
        caller.sendall(_BEGUN_HANDSHAKE)
        self._stay(caller)

    def garbage(self) -> None:
        with self._connect() as caller:
            caller.sendall(_GARBAGE)

    def whole_handshake(self) -> None:
        self._stay(self._tls.wrap_socket(self._connect(), server_hostname="localhost"))

    def no_token(self) -> None:
        self._call(())

    def wrong_token(self) -> None:
        self._call((("authorization", "Bearer wrong"),))

    def _call(self, metadata: tuple[tuple[str, str], ...]) -> None:
        try:
            self._infer(b"", metadata=metadata, timeout=_TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAUTHENTICATED:  # type: ignore[attr-defined]  # it is a call too
                raise

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._address, timeout=_TIMEOUT_S)

    def _stay(self, caller: socket.socket) -> None:
        self._staying.append(caller)
        if len(self._staying) > KEPT_OPEN:
            self._staying.popleft().close()


def main(address: str, ca_file: str, per_s: str) -> None:
    """Start one unauthenticated caller after the other, of each kind in turn."""
    callers = UnauthenticatedCallers(address, ca_file)
    counts: Counter[str] = Counter()
    for send in itertools.cycle(callers.kinds):
        try:
            send()
            counts[send.__name__] += 1
        except OSError:
            counts["shut out"] += 1
        if select.select([sys.stdin], [], [], 1 / float(per_s))[0]:
            break
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main(*sys.argv[1:])
