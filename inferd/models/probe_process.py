"""The process that opens model files before the server does, started by `probe_pool`.

It receives one file at a time over a socket, whose descriptor is its first argument. Messages are JSON after their
length. It ends with the server: its standard input is a pipe without data, which is closed when the server ends.
"""

import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from inferd.config.settings import ModelSettings
from inferd.models.language.probing import open_as_served
from inferd.runtime.background import step_back
from inferd.runtime.external_weights import ExternalWeights
from inferd.runtime.resources import trim_heap
from inferd.runtime.trial_opening import try_opening, weight_fingerprints

_LENGTH = struct.Struct(">I")
_STDIN = 0
_STDERR = 2

#: The system ends this process before any other if memory runs out.
_OOM_SCORE = "1000"


def send(connection: socket.socket, message: Mapping[str, object]) -> None:
    """Send ``message``. Raises `OSError`."""
    content = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Return the next message; None if the other end has closed or aborted the connection."""
    header = _receive_bytes(connection, _LENGTH.size)
    if header is None:
        return None
    content = _receive_bytes(connection, *_LENGTH.unpack(header))
    if content is None:
        return None
    message: dict[str, Any] = json.loads(content)
    return message


def _receive_bytes(connection: socket.socket, count: int) -> bytes | None:
    content = bytearray()
    while len(content) < count:
        try:
            part = connection.recv(count - len(content))
        except ConnectionError:
            return None
        if not part:
            return None
        content += part
    return bytes(content)


def main() -> None:
    """Open files until the server closes the connection."""
    _end_with_server()
    _step_back()
    _discard_output()
    with socket.socket(fileno=int(sys.argv[1])) as server:
        send(server, {"started": True})
        while (request := receive(server)) is not None:
            _open(request, server)


def _open(request: Mapping[str, Any], server: socket.socket) -> None:
    def report(weights: ExternalWeights) -> None:
        size = sum(file.stat().st_size for file in weights.files.values())
        send(server, {"weights": weight_fingerprints(weights), "bytes": size})

    def opened() -> None:
        send(server, {"opened": True})

    settings = ModelSettings.model_validate(request["settings"])
    try_opening(Path(request["path"]), settings, report, opened, open_as_served)
    # The server itself needs as much memory next.
    trim_heap()
    send(server, {"ended": True})


def _end_with_server() -> None:
    """Let the system end this process when the server ends, even if it is busy in ONNX Runtime then.

    A parent-death signal would come when the thread of the server that started this process ends.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    fcntl.fcntl(_STDIN, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(_STDIN, fcntl.F_SETFL, fcntl.fcntl(_STDIN, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([_STDIN], [], [], 0)[0]:  # closed before
        sys.exit()


def _step_back() -> None:
    """Lower the priority to that of background work, and write no core files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    step_back()
    with suppress(OSError):  # no /proc, or a sandbox
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _discard_output() -> None:
    """Discard standard error from now on: the server reads it only if this process does not start."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), _STDERR)
