"""Ends streams whose callers are let in no longer: a stream may be open for longer than its credential holds."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import grpc

from inferd.errors import NotAllowedError, NotAuthenticatedError, ServingError
from inferd.rpc import Call, UnaryCall
from inferd.security.authorization.methods import kind_of
from inferd.security.authorization.policy import Policy, denial
from inferd.security.authorization.quota import QuotaStore
from inferd.security.identity import Identity
from inferd.security.known_callers import caller_of
from inferd.security.snapshot import InForce, Snapshot

_log = logging.getLogger(__name__)

_CODES = {
    NotAuthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowedError: grpc.StatusCode.PERMISSION_DENIED,
}


@dataclass(slots=True)
class _Stream:
    """Who opened it, and what was in force when its permissions was made."""

    identity: Identity
    permitted_by: Snapshot


class StreamGuard:
    """Looks over the open streams: whether each caller's credential still holds, and what the rules grant it now.

    A handler that has to be told of such an end leaves the annotation "end_stream", a function of a `ServingError`
    that any thread may call; other calls are just ended.

    Threads: ``add`` the poll thread, ``sweep`` one other, and streams end in any. They share a dictionary that each of
    them uses in single steps only.
    """

    def __init__(self, in_force: InForce, quotas: QuotaStore, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._in_force = in_force
        self._quotas = quotas
        self._wall_clock = wall_clock
        self._open: dict[Call, _Stream] = {}

    def add(self, call: Call, identity: Identity, permitted_by: Snapshot) -> None:
        """Look after a new stream until it ends."""
        self._open[call] = _Stream(identity, permitted_by)
        call.on_finished(self._forget)

    def _forget(self, call: Call, _code: grpc.StatusCode, _details: str) -> None:
        """Look after a stream no more, and take from it what leads back to it."""
        self._open.pop(call, None)
        call.annotations.pop("end_stream", None)

    def sweep(self) -> None:
        """Look once; streams that are let in no longer end."""
        snapshot = self._in_force.current
        for call, stream in self._open.copy().items():
            try:
                self._look(call, stream, snapshot)
            except Exception:  # noqa: BLE001  the others must be looked at too
                _log.exception("a stream of %s could not be ended", call.method)

    def _look(self, call: Call, stream: _Stream, snapshot: Snapshot) -> None:
        identity = snapshot.renewed(stream.identity)
        if identity is None:
            _end(call, NotAuthenticatedError("the credential of this stream is no longer valid"))
        elif identity.expires_at <= self._wall_clock():
            _end(call, NotAuthenticatedError("the credential of this stream has expired"))
        elif snapshot is not stream.permitted_by:
            stream.permitted_by = snapshot
            self._grant_anew(call, stream.identity, snapshot.policy)

    def _grant_anew(self, call: Call, identity: Identity, policy: Policy | None) -> None:
        permissions = caller_of(identity, policy, self._quotas).permissions
        call.facts.permissions = permissions
        if permissions is None:
            return
        kind = kind_of(call.method)
        if not permissions.may_call(kind):
            _end(call, NotAllowedError(denial(kind)))


def _end(call: Call, error: ServingError) -> None:
    end_stream = call.annotations.get("end_stream")
    if callable(end_stream):
        end_stream(error)
    else:
        # Calls of both kinds can be ended so; their protocols tell handlers of one way each.
        cast("UnaryCall", call).abort(_CODES[type(error)], error.message)
