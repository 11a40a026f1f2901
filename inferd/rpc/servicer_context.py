"""The `grpc.ServicerContext` of ordinary handlers."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import grpc

from inferd.call_context import CallContext, log_fields
from inferd.rpc import core
from inferd.rpc.core import Metadata, checked_metadata
from inferd.rpc.stream_call import CoreStreamCall

_log = logging.getLogger("inferd.rpc")


class AbortedError(Exception):
    """Unwinds a handler that called ``abort``."""


class ServicerContext(grpc.ServicerContext):
    """A `grpc.ServicerContext` for one call.

    Status and metadata belong to the handler's thread. Callbacks run in a thread that may block, after the call has
    ended, whatever its status.
    """

    def __init__(self, call: CoreStreamCall, run_callbacks: Callable[[Callable[[], None]], object]) -> None:
        self._call = call
        self._run_callbacks = run_callbacks
        self._callbacks: list[Callable[[], None]] = []
        self._over = False
        self._code: grpc.StatusCode | None = None
        self._details: str | None = None
        self._trailing_metadata: Metadata = ()
        self.aborted = False
        call.on_unregistered = self._on_unregistered

    @property
    def call_context(self) -> CallContext:
        """What handlers and interceptors record about the call; gRPC's own contexts lack it."""
        return self._call.context

    def is_active(self) -> bool:
        """Return whether an answer can still reach the caller."""
        return not self._call.has_ended

    def time_remaining(self) -> float | None:  # type: ignore[override]  # None per gRPC's documentation
        """Return the seconds until the deadline, at least 0, or None if there is no deadline."""
        deadline = self._call.deadline
        return None if deadline == math.inf else max(deadline - time.monotonic(), 0.0)

    def cancel(self) -> None:
        """End the call with CANCELLED."""
        self._call.cancel()

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call ``callback`` when the call has ended. Returns False, and does not call it, if it has ended already."""
        self._callbacks.append(callback)
        if not self._over:
            return True
        try:
            self._callbacks.remove(callback)
        except ValueError:  # the call has just ended and runs its callbacks
            return True
        return False

    def invocation_metadata(self) -> Metadata:  # type: ignore[override]  # the stubs know no metadata but tuples
        """Return the metadata of the request."""
        return self._call.metadata

    def peer(self) -> str:
        """Return the caller's address."""
        return self._call.peer

    def peer_identities(self) -> Sequence[bytes] | None:
        """Return the authenticated names of the peer, or None."""
        return core.peer_identities(self._call.core_call)

    def peer_identity_key(self) -> str | None:
        """Return the key of the identities in the auth context, or None."""
        return core.peer_identity_key(self._call.core_call)

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:  # type: ignore[override]  # the stubs have one value each
        """Return the properties of the authenticated peer."""
        return self._call.auth_context()

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: compression is set per channel."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: compression is set per channel."""

    def send_initial_metadata(self, initial_metadata: Metadata) -> None:
        """Send the headers now. Raises ValueError if they are illegal or were sent before."""
        if not self._call.send_headers(checked_metadata(initial_metadata)) and self.is_active():
            raise ValueError("the initial metadata was sent before")

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Set the trailing metadata. Raises ValueError if it is illegal."""
        self._trailing_metadata = checked_metadata(trailing_metadata) or ()

    def trailing_metadata(self) -> Metadata:  # type: ignore[override]  # the stubs know no metadata but tuples
        """Return the trailing metadata that was set."""
        return self._trailing_metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Raise, to end the call with this status; OK becomes UNKNOWN."""
        if code == grpc.StatusCode.OK:
            fields = log_fields(self._call)
            _log.error("%s was aborted with OK, which is no error", self._call.method, extra=fields)
            code, details = grpc.StatusCode.UNKNOWN, ""
        self._code, self._details = code, details
        self.aborted = True
        raise AbortedError

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """Raise, to end the call with ``status``."""
        self.set_trailing_metadata(status.trailing_metadata or ())
        self.abort(status.code, status.details)

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status code for the return of the handler."""
        self._code = code

    def code(self) -> grpc.StatusCode | None:
        """Return the code that was set."""
        return self._code

    def set_details(self, details: str) -> None:
        """Set the status details."""
        self._details = details

    def details(self) -> str | None:
        """Return the details that were set."""
        return self._details

    def end(self, default_code: grpc.StatusCode, default_details: str, last_message: bytes | None = None) -> None:
        """Finish the call with the status that was set, or else with the defaults."""
        code = default_code if self._code is None else self._code
        details = default_details if self._details is None else self._details
        # Clients drop a message that comes with an error.
        message = last_message if code is grpc.StatusCode.OK else None
        self._call.finish(code, details, self._trailing_metadata, last_message=message)

    def _on_unregistered(self) -> None:
        self._over = True
        while self._callbacks:
            self._run_callbacks(self._callbacks.pop(0))
