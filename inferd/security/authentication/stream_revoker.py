"""Terminate open streams whose credential has expired or was revoked, or whose caller lost its permissions."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc

from inferd.errors import NotAllowedError, NotAuthenticatedError, ServingError
from inferd.rpc import Call, UnaryCall
from inferd.security.authentication.credentials import Snapshot, SnapshotStore
from inferd.security.authentication.identity import Identity
from inferd.security.authorization.methods import kind_of
from inferd.security.authorization.policy import Policy, denial, permissions_of
from inferd.security.authorization.quota import QuotaStore

_log = logging.getLogger(__name__)

_CODES = {
    NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
}


@dataclass(slots=True)
class _Stream:
    """The identity that opened a stream, and the snapshot that its permissions come from."""

    identity: Identity
    snapshot: Snapshot


class StreamRevoker:
    """Checks the credentials of open streams again, and updates their permissions when the policy has changed.

    A handler that wants to end its stream itself sets the annotation ``end_stream``, a function of a `ServingError`
    that any thread may call; other calls are aborted.

    Threads: ``add`` the poll thread, ``check`` one other; streams end in any thread. They share a dictionary on which
    each operation is atomic.
    """

    def __init__(
        self, snapshots: SnapshotStore, quotas: QuotaStore, *, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._snapshots = snapshots
        self._quotas = quotas
        self._wall_clock = wall_clock
        self._open: dict[Call, _Stream] = {}

    def add(self, call: Call, identity: Identity, snapshot: Snapshot) -> None:
        """Check a new stream until it ends."""
        self._open[call] = _Stream(identity, snapshot)
        call.on_finished(self._remove)

    def _remove(self, call: Call, _code: grpc.StatusCode, _details: str) -> None:
        """Drop a stream that ended, and its annotation, which refers back to it."""
        self._open.pop(call, None)
        call.annotations.pop("end_stream", None)

    def check(self) -> None:
        """Check all open streams once."""
        snapshot = self._snapshots.current
        for call, stream in self._open.copy().items():
            try:
                self._check(call, stream, snapshot)
            except Exception:  # noqa: BLE001  the other streams must still be checked
                _log.exception("failed to end a stream of %s", call.method)

    def _check(self, call: Call, stream: _Stream, snapshot: Snapshot) -> None:
        identity = snapshot.revalidate(stream.identity)
        if identity is None:
            _end(call, NotAuthenticatedError("the credential of this stream is no longer valid"))
        elif identity.expires_at <= self._wall_clock():
            _end(call, NotAuthenticatedError("the credential of this stream has expired"))
        elif snapshot is not stream.snapshot:
            stream.snapshot = snapshot
            self._update_permissions(call, stream.identity, snapshot.policy)

    def _update_permissions(self, call: Call, identity: Identity, policy: Policy | None) -> None:
        permissions = None if policy is None else permissions_of(identity.principal, policy, self._quotas)
        call.context.permissions = permissions
        kind = kind_of(call.method)
        if permissions is not None and not permissions.may_call(kind):
            _end(call, NotAllowedError(denial(kind)))


def _end(call: Call, error: ServingError) -> None:
    end_stream = call.annotations.get("end_stream")
    if callable(end_stream):
        end_stream(error)
    else:
        # Every call has `abort`, but only the protocol of unary calls declares it.
        cast("UnaryCall", call).abort(_CODES[type(error)], error.message)
