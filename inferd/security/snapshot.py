"""What is in force at one moment: credentials and rules."""

import threading
from dataclasses import dataclass, replace
from typing import Protocol

from inferd.security.bearer_tokens import TokenTable
from inferd.security.identity import CredentialError, Identity
from inferd.security.policy import Policy

_INVALID = "the bearer token is not valid"


class TokenVerifier(Protocol):
    """Knows the identities behind some kind of bearer token."""

    def check(self, token: str, now: float) -> Identity | None:
        """Return whose ``token`` is, or None if it is not one of these. Raises `CredentialError` if it does not hold.

        ``now`` is in seconds since the epoch.
        """
        ...

    def still_holds(self, identity: Identity) -> bool:
        """Whether ``identity``, which came from a verifier of this kind, would be given today, expiry aside."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Never changed, only replaced as a whole, so that what was found out with one holds as long as it is in force."""

    tokens: TokenTable | None = None
    policy: Policy | None = None

    def identify(self, token: str, now: float) -> Identity:
        """Return whose bearer ``token`` is. Raises `CredentialError`."""
        for verifier in self._verifiers():
            identity = verifier.check(token, now)
            if identity is not None:
                return identity
        raise CredentialError(_INVALID)

    def still_holds(self, identity: Identity) -> bool:
        """Whether ``identity`` would be given today, expiry aside."""
        return any(verifier.still_holds(identity) for verifier in self._verifiers())

    def _verifiers(self) -> tuple[TokenVerifier, ...]:
        return tuple(verifier for verifier in (self.tokens,) if verifier is not None)


class InForce:
    """The snapshot that holds now. ``current`` any thread, without a lock; ``update`` any thread."""

    def __init__(self) -> None:
        self.current = Snapshot()
        self._writing = threading.Lock()

    def update(self, **changes: object) -> None:
        """Put a snapshot with ``changes`` in force."""
        with self._writing:
            self.current = replace(self.current, **changes)  # type: ignore[arg-type]  # names of its fields
