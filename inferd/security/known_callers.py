"""Callers that were seen before are known again without verifying anything."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from inferd.security.authorization.policy import Permissions, Policy, permissions_of
from inferd.security.authorization.quota import QuotaStore
from inferd.security.identity import CredentialError, Identity
from inferd.security.snapshot import Snapshot
from inferd.security.spiffe import CERTIFICATE

V = TypeVar("V")

#: Credentials that hold, and that do not, of which is remembered what they are. Kept apart, so that a flood of wrong
#: ones does not push out those that hold.
_MAX_CALLERS = 4096
_MAX_STRANGERS = 1024

#: No credential is longer. A call's metadata can be: gRPC's limit is for clients that have acknowledged it.
_LONGEST_HEADER = 16 * 1024

#: Longer ones that do not hold are verified each time, so that strangers cannot fill the memory with them.
_LONGEST_STRANGER = 2 * 1024

_SCHEME = "bearer "
_FORM = 'expected an authorization header of the form "Bearer TOKEN"'


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls and what it may do; ``permissions`` is None where there are no rules."""

    identity: Identity
    permissions: Permissions | None


def caller_of(identity: Identity, policy: Policy | None, quotas: QuotaStore) -> Caller:
    """Return what ``policy`` lets ``identity`` do."""
    return Caller(identity, None if policy is None else permissions_of(identity.principal, policy, quotas))


class RecentlyUsed(dict[str | bytes, V | None]):
    """Remembers at least the ``limit`` entries that were used last, and at most twice as many; one thread at a time.

    ``known[key]`` is what is remembered of a key, or None. In two generations, of which the younger is the dictionary
    itself, so that looking up what is used often is no more than that.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._old: dict[str | bytes, V | None] = {}

    def __missing__(self, key: str | bytes) -> V | None:
        """Look among the older ones."""
        value = self._old.get(key)
        if value is not None:
            self[key] = value
        return value

    def __setitem__(self, key: str | bytes, value: V | None) -> None:
        """Remember ``value``."""
        if len(self) >= self._limit:
            self._old = self.copy()
            self.clear()
        super().__setitem__(key, value)


class KnownCallers:
    """The callers of one snapshot. On the poll thread only.

    Headers are known as they came. That keeps their secrets in memory, as gRPC's core does with the headers of each
    open connection. How long a look into a dictionary takes tells nothing of them: it compares what has the same hash,
    under a key that Python makes up for each process.
    """

    def __init__(self, snapshot: Snapshot, quotas: QuotaStore) -> None:
        self.snapshot = snapshot
        self._quotas = quotas
        self._callers: RecentlyUsed[Caller] = RecentlyUsed(_MAX_CALLERS)
        # Apart, as certificates are no secrets: none must let in who sends it as a header.
        self._shown: RecentlyUsed[Caller] = RecentlyUsed(_MAX_CALLERS)
        self._strangers: RecentlyUsed[str] = RecentlyUsed(_MAX_STRANGERS)

    def by_header(self, header: str | bytes, wall_clock: Callable[[], float]) -> Caller:
        """Return who sends this authorization header. Raises `CredentialError`."""
        caller = self._callers[header]
        if caller is None:
            return self._meet(header, wall_clock())
        expires_at = caller.identity.expires_at
        # Most tokens that are given out never expire, and then nobody need look at the clock.
        if expires_at != math.inf and expires_at <= wall_clock():
            raise CredentialError("the bearer token has expired")
        return caller

    def by_certificate(self, proven: Mapping[str, Sequence[bytes]]) -> Caller | None:
        """Return whose certificate gRPC tells of in ``proven``, None without one. Raises `CredentialError`.

        One that is known is not looked at again.
        """
        verifier, shown = self.snapshot.spiffe, proven.get(CERTIFICATE)
        if verifier is None or not shown:
            return None
        caller = self._shown[shown[0]]
        if caller is None:
            caller = caller_of(verifier.check(proven), self.snapshot.policy, self._quotas)
            self._shown[shown[0]] = caller
        return caller

    def _meet(self, header: str | bytes, now: float) -> Caller:
        reason = self._strangers[header]
        if reason is not None:
            raise CredentialError(reason)
        try:
            caller = caller_of(self.snapshot.identify(_token_in(header), now), self.snapshot.policy, self._quotas)
        except CredentialError as error:
            if error.lasting and len(header) <= _LONGEST_STRANGER:
                self._strangers[header] = str(error)
            raise
        self._callers[header] = caller
        return caller


def _token_in(header: str | bytes) -> str:
    if len(header) > _LONGEST_HEADER or not isinstance(header, str):
        raise CredentialError(_FORM)
    token = header[len(_SCHEME) :].strip(" ")
    if header[: len(_SCHEME)].lower() != _SCHEME or not token:
        raise CredentialError(_FORM)
    return token
