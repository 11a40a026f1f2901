"""What is in force at one moment: credentials and rules."""

import threading
from dataclasses import dataclass, replace

from inferd.security.authorization.policy import Policy
from inferd.security.bearer_tokens import TokenTable
from inferd.security.identity import CredentialError, Identity
from inferd.security.json_web_tokens import JwtVerifier
from inferd.security.spiffe import SpiffeVerifier

_INVALID = "the bearer token is not valid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Never changed, only replaced as a whole, so that what was found out with one holds as long as it is in force."""

    tokens: TokenTable | None = None
    jwt: JwtVerifier | None = None
    spiffe: SpiffeVerifier | None = None
    policy: Policy | None = None

    def identify(self, token: str, now: float) -> Identity:
        """Return whose bearer ``token`` is. Raises `CredentialError`. ``now`` is in seconds since the epoch."""
        for verifier in (self.tokens, self.jwt):
            identity = None if verifier is None else verifier.check(token, now)
            if identity is not None:
                return identity
        raise CredentialError(_INVALID)

    def renewed(self, identity: Identity) -> Identity | None:
        """Return what ``identity`` is today, which may have expired; None if it would not be given any more."""
        for verifier in (self.tokens, self.jwt, self.spiffe):
            renewed = None if verifier is None else verifier.renewed(identity)
            if renewed is not None:
                return renewed
        return None


class InForce:
    """The snapshot that holds now. ``current`` any thread, without a lock; ``update`` any thread."""

    def __init__(self) -> None:
        self.current = Snapshot()
        self._writing = threading.Lock()

    def update(self, **changes: object) -> None:
        """Put a snapshot with ``changes`` in force."""
        with self._writing:
            self.current = replace(self.current, **changes)  # type: ignore[arg-type]  # names of its fields
