"""The credentials that are accepted now, and a cache of those that were verified."""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from inferd.security.authentication.bearer_tokens import TokenTable
from inferd.security.authentication.identity import EXPIRED, INVALID, CredentialError, Identity
from inferd.security.authentication.json_web_tokens import JwtVerifier
from inferd.security.authentication.spiffe import CERTIFICATE, SpiffeVerifier
from inferd.security.authorization.policy import Permissions, Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore

V = TypeVar("V")

#: Cached credentials: valid and invalid ones are kept apart, so that a flood of invalid ones evicts no valid one.
_MAX_CALLERS = 4096
_MAX_REJECTED = 1024

#: No valid credential is longer. A call's metadata can be: gRPC's limit binds only clients that acknowledged it.
_MAX_HEADER_CHARACTERS = 16 * 1024

#: Longer invalid headers are not cached, so that unauthenticated callers cannot fill the memory with them.
_MAX_REJECTED_CHARACTERS = 2 * 1024

_SCHEME = "bearer "
_HEADER_FORMAT = 'expected an authorization header of the form "Bearer TOKEN"'


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """All verifiers and the policy at one time.

    Immutable and replaced as a whole, so that results derived from it are valid for as long as it is current.
    """

    tokens: TokenTable | None = None
    jwt: JwtVerifier | None = None
    spiffe: SpiffeVerifier | None = None
    policy: Policy | None = None

    def authenticate(self, token: str, now: float) -> Identity:
        """Return the identity of a bearer ``token``. Raises `CredentialError`. ``now`` is seconds since the epoch."""
        for verifier in (self.tokens, self.jwt):
            identity = None if verifier is None else verifier.verify(token, now)
            if identity is not None:
                return identity
        raise CredentialError(INVALID)

    def revalidate(self, identity: Identity) -> Identity | None:
        """Return ``identity`` as it is now, possibly expired; None if its credential is no longer accepted."""
        for verifier in (self.tokens, self.jwt, self.spiffe):
            current = None if verifier is None else verifier.revalidate(identity)
            if current is not None:
                return current
        return None


class SnapshotStore:
    """Holds the current snapshot. Any thread may read ``current``, without a lock, and ``update`` it."""

    def __init__(self) -> None:
        self.current = Snapshot()
        self._write_lock = threading.Lock()

    def update(self, **changes: object) -> None:
        """Replace the snapshot by one with ``changes``."""
        with self._write_lock:
            self.current = replace(self.current, **changes)  # type: ignore[arg-type]  # names of its fields


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller; ``permissions`` is None if there is no policy."""

    identity: Identity
    permissions: Permissions | None


class TwoGenerationCache(dict[str | bytes, V | None]):
    """Keeps at least the ``limit`` entries used last and at most twice as many; ``cache[key]`` is None on a miss.

    The dictionary itself is the young generation, so that a hit takes no Python call. One thread at a time.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._old: dict[str | bytes, V | None] = {}

    def __missing__(self, key: str | bytes) -> V | None:
        """Look in the old generation, and move what is found to the young one."""
        value = self._old.get(key)
        if value is not None:
            self[key] = value
        return value

    def __setitem__(self, key: str | bytes, value: V | None) -> None:
        """Add an entry to the young generation; when that is full, it becomes the old one."""
        if len(self) >= self._limit:
            self._old = self.copy()
            self.clear()
        super().__setitem__(key, value)


class CredentialCache:
    """Authenticates callers by the credentials of one snapshot, verifying each credential once. Poll thread only.

    Headers are cached as received. This keeps their secrets in memory, as gRPC's core does with the headers of each
    open connection. Lookup times reveal nothing: a dictionary compares only keys of equal hash, and Python seeds the
    hash randomly in each process.
    """

    def __init__(self, snapshot: Snapshot, quotas: QuotaStore) -> None:
        self.snapshot = snapshot
        self._quotas = quotas
        self._by_header: TwoGenerationCache[Caller] = TwoGenerationCache(_MAX_CALLERS)
        # Separate: a certificate is public, so it must never match as a header.
        self._by_certificate: TwoGenerationCache[Caller] = TwoGenerationCache(_MAX_CALLERS)
        self._rejected: TwoGenerationCache[str] = TwoGenerationCache(_MAX_REJECTED)

    def by_header(self, header: str | bytes, wall_clock: Callable[[], float]) -> Caller:
        """Return the caller that sent an authorization ``header``. Raises `CredentialError`."""
        caller = self._by_header[header]
        if caller is None:
            return self._verify(header, wall_clock())
        expires_at = caller.identity.expires_at
        # Most tokens never expire: do not read the clock for them.
        if expires_at != math.inf and expires_at <= wall_clock():
            raise CredentialError(EXPIRED)
        return caller

    def by_certificate(self, auth_context: Mapping[str, Sequence[bytes]]) -> Caller | None:
        """Return the caller of a connection, None if it has no client certificate. Raises `CredentialError`."""
        verifier, certificates = self.snapshot.spiffe, auth_context.get(CERTIFICATE)
        if verifier is None or not certificates:
            return None
        caller = self._by_certificate[certificates[0]]
        if caller is None:
            caller = self._caller(verifier.verify(auth_context))
            self._by_certificate[certificates[0]] = caller
        return caller

    def _verify(self, header: str | bytes, now: float) -> Caller:
        reason = self._rejected[header]
        if reason is not None:
            raise CredentialError(reason)
        try:
            caller = self._caller(self.snapshot.authenticate(_token_in(header), now))
        except CredentialError as error:
            if error.cacheable and len(header) <= _MAX_REJECTED_CHARACTERS:
                self._rejected[header] = str(error)
            raise
        self._by_header[header] = caller
        return caller

    def _caller(self, identity: Identity) -> Caller:
        policy = self.snapshot.policy
        return Caller(identity, None if policy is None else permissions_of(identity.principal, policy, self._quotas))


def _token_in(header: str | bytes) -> str:
    if len(header) > _MAX_HEADER_CHARACTERS or not isinstance(header, str):
        raise CredentialError(_HEADER_FORMAT)
    token = header[len(_SCHEME) :].strip(" ")
    if header[: len(_SCHEME)].lower() != _SCHEME or not token:
        raise CredentialError(_HEADER_FORMAT)
    return token
