"""Probes a server's health over HTTP, as Kubernetes does: at a fixed rate, each time over a connection of its own."""

import http.client
import threading
import time
from types import TracebackType
from typing import Self

import psutil

from benchmarks.process import Server

_PATH = "/livez"
_INTERVAL_S = 0.02
_TIMEOUT_S = 5.0


class HttpProbe:
    """Probes ``port`` while the context is open. Durations are counted from when each probe was due."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._durations_s: list[float] = []
        self.failures = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Start probing."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop probing."""
        self._stopped.set()
        self._thread.join()

    def quantile_ms(self, share: float) -> float:
        """Return the duration that ``share`` of the probes did not exceed, in milliseconds; 0 without any."""
        ordered = sorted(self._durations_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3 if ordered else 0.0

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped.wait(max(0.0, due - time.monotonic())):
            if not self._is_alive():
                self.failures += 1
            self._durations_s.append(time.monotonic() - due)
            due += _INTERVAL_S

    def _is_alive(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
        try:
            connection.request("GET", _PATH)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def http_port(server: Server, grpc_port: int) -> int:
    """Return the port for scrapes and probes of inferd, which listens on two ports."""
    connections = psutil.Process(server.pid).net_connections("tcp")
    listening = {found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN}
    (port,) = listening - {grpc_port}
    return int(port)
