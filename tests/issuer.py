"""An issuer of JSON Web Tokens, valid and forged."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NAME = "https://issuer.test"
AUDIENCE = "inferd"
HOUR_S = 3600

_ALGORITHMS = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


class Issuer:
    """Signs with a key of any supported algorithm. ``kid`` is the key's id."""

    def __init__(self, kid: str = "one", algorithm: str = "ES256", *, bits: int = 2048) -> None:
        self.kid = kid
        self.algorithm = algorithm
        self.key: Any = {
            "RS256": lambda: rsa.generate_private_key(65537, bits),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]()

    def jwk(self, **more: object) -> dict[str, object]:
        """Return the published public key."""
        public = json.loads(_ALGORITHMS[self.algorithm].to_jwk(self.key.public_key()))
        public.pop("key_ops", None)
        return {**public, "kid": self.kid, "use": "sig", **more}

    def token(self, subject: object = "alice", **claims: object) -> str:
        """Return a token; claims that are None are omitted."""
        return jwt.encode(self._claims(subject, claims), self.key, self.algorithm, {"kid": self.kid})

    def token_without_kid(self, subject: object = "alice", **claims: object) -> str:
        """Return a token without a key id."""
        return jwt.encode(self._claims(subject, claims), self.key, self.algorithm)

    def unsigned(self, algorithm: str = "none") -> str:
        """Return a token with the algorithm ``none``."""
        return f"{_encoded({'alg': algorithm, 'kid': self.kid})}.{_encoded(self._claims('alice', {}))}."

    def signed_with_the_public_key(self) -> str:
        """Return a token that uses the public key as an HMAC secret."""
        secret = self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        body = f"{_encoded({'alg': 'HS256', 'kid': self.kid})}.{_encoded(self._claims('alice', {}))}"
        return f"{body}.{_base64(hmac.digest(secret, body.encode(), hashlib.sha256))}"

    def _claims(self, subject: object, claims: dict[str, object]) -> dict[str, object]:
        every = {"sub": subject, "iss": NAME, "aud": AUDIENCE, "exp": int(time.time()) + HOUR_S, **claims}
        return {name: value for name, value in every.items() if value is not None}


def jwks(*keys: dict[str, object]) -> str:
    """Return a published key set."""
    return json.dumps({"keys": keys})


def _encoded(content: object) -> str:
    return _base64(json.dumps(content).encode())


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
