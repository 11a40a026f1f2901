"""Makes one call from the server to itself, so that the poll thread can be woken before the first client calls.

Only a batch on a call wakes a poll that sleeps (see `poll_loop`). Other protocols must not wait for gRPC's first call,
so the server listens at a Unix socket in a directory that only its user may enter, for one call of a method with a
random name, and then removes the directory. Neither interceptors nor limits see that call.
"""

import logging
import secrets
import tempfile
from pathlib import Path

import grpc

from inferd.rpc import core
from inferd.rpc.poll_loop import PollLoop

_log = logging.getLogger("inferd.rpc")

#: Timeout of the call, which takes some milliseconds.
_TIMEOUT_S = 10.0


class SelfCall:
    """Makes the call: `prepare` before the core starts, `make` after that and not on the poll thread.

    A `CallSource`, because the server must not end before the call has come from the core.
    """

    def __init__(self, server: core.CoreServer, queue: core.Queue, loop: PollLoop) -> None:
        self._server = server
        self._queue = queue
        self._loop = loop
        self._method = f"/{secrets.token_hex(8)}/Wake"
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._is_pending = False

    def prepare(self) -> None:
        """Listen for the call."""
        try:
            self._directory = tempfile.TemporaryDirectory(prefix="inferd-")
        except OSError as error:
            _log.warning("requests over HTTP may wait for 50 ms until the first one over gRPC: %s", error)
            return
        self._server.register_method(self._method)
        core.bind(self._server, self._address, None)

    def make(self) -> None:
        """Make the call, and wait until the poll thread has it."""
        if self._directory is None:
            return
        self._is_pending = True
        self._server.request_registered_call(self._queue, self._queue, self._method, self._arrived)
        try:
            with grpc.insecure_channel(self._address, (("grpc.enable_http_proxy", 0),)) as channel:
                channel.unary_unary(self._method, None, None)(b"", timeout=_TIMEOUT_S, wait_for_ready=True)
        except grpc.RpcError as error:
            # The server cancels it.
            if error.code() is not grpc.StatusCode.CANCELLED:
                _log.warning("the server could not call itself: %s", error)
        finally:
            self._directory.cleanup()

    def cancel_all(self) -> None:
        """See `CallSource.cancel_all`; the core does it."""

    def close(self) -> bool:
        """See `CallSource.close`."""
        return not self._is_pending

    @property
    def _address(self) -> str:
        assert self._directory is not None, "checked before"
        return f"unix:{Path(self._directory.name, 'wake')}"

    def _arrived(self, event: core.RequestEvent) -> None:
        self._is_pending = False
        if event.success:
            self._loop.wake_by(event.call)
            event.call.cancel()
