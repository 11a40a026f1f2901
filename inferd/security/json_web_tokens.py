"""JSON Web Tokens: whose they are, if an issuer that is trusted has signed them for us."""

from collections.abc import Callable
from typing import Any

import jwt

from inferd.config.security import JwtSettings
from inferd.security.identity import CredentialError, Identity
from inferd.security.jwks import KeySet, SigningKey

_PREFIX = "jwt:"
_LONGEST_NAME = 256
_INVALID = "the bearer token is not valid"


class JwtVerifier:
    """Verifies tokens with one set of keys. Immutable.

    ``on_unknown_key`` is told of tokens with a key that is not known, which might be a new one; it must not block.
    """

    def __init__(self, settings: JwtSettings, keys: KeySet, on_unknown_key: Callable[[], None]) -> None:
        self.keys = keys
        self._settings = settings
        self._on_unknown_key = on_unknown_key
        self._required = ["exp", "iss", "aud", settings.principal_claim]

    def check(self, token: str, _now: float) -> Identity | None:
        """Return whose ``token`` is, or None if it is none of these. Raises `CredentialError` if it does not hold."""
        if token.count(".") != 2:
            return None
        try:
            return self._verified(token)
        except jwt.ExpiredSignatureError:
            raise CredentialError("the bearer token has expired") from None
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
            raise CredentialError(_INVALID, lasting=False) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # The latter are from hostile contents. What exactly is wrong is nothing for strangers, nor for the log.
            raise CredentialError(_INVALID) from None

    def renewed(self, identity: Identity) -> Identity | None:
        """Return ``identity``, or None if the key that it was signed with is not one of the issuer's any more."""
        return identity if identity.principal.startswith(_PREFIX) and self.keys.has(identity.proof) else None

    def _verified(self, token: str) -> Identity:
        header = jwt.get_unverified_header(token)
        kid = header.get("kid")
        named = self.keys.get(kid)
        if named is not None:
            return self._signed_by(named, token)
        for key in self.keys.candidates(kid, header.get("alg")):
            try:
                return self._signed_by(key, token)
            except jwt.InvalidSignatureError:
                continue
        self._on_unknown_key()
        # Not lasting: the next time the key may have been published, or its URL be asked again.
        raise CredentialError(_INVALID, lasting=False)

    def _signed_by(self, key: SigningKey, token: str) -> Identity:
        """Return whose ``token`` is. Raises of PyJWT's errors `InvalidSignatureError` if it has another key's."""
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            # Not what the token says: a public key must never be taken for a secret one.
            algorithms=[key.algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": self._required},
        )
        return Identity(
            _PREFIX + _name(claims[settings.principal_claim]), key.proof, float(claims["exp"]) + settings.leeway_s
        )


def _name(claim: object) -> str:
    """Return a claim that can be a name: it gets into rules and logs."""
    if isinstance(claim, str) and 0 < len(claim) <= _LONGEST_NAME and claim.isprintable():
        return claim
    raise CredentialError(_INVALID)
