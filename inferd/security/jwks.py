"""Public keys that JSON Web Tokens are signed with, as issuers publish them."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inferd.security.files import BadFileError
from inferd.security.yaml_file import read_text

_LEAST_RSA_BITS = 2048

#: Keys that a token is tried with that does not say which: each takes some 0.1 ms, and anybody can make such tokens.
MOST_TRIED = 4

#: Parts of a key that are not public.
_PRIVATE = frozenset({"d", "k", "p", "q"})

_PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, and the one algorithm that it is used with whatever a token says. ``proof`` is a hash of it."""

    key: _PublicKey
    algorithm: str
    proof: bytes


class KeySet:
    """Keys by their id, and those ``without_id``, which RFC 7517 allows for. Immutable."""

    def __init__(self, keys: Mapping[str, SigningKey], without_id: Sequence[SigningKey] = ()) -> None:
        self._keys = dict(keys)
        self._without_id = tuple(without_id)
        self._every = (*self._without_id, *self._keys.values())
        self._proofs = frozenset(key.proof for key in self._every)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file at ``path``, or raise `BadFileError`."""
        return cls.parse(read_text(path), str(path))

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> Self:
        """Take a JSON Web Key Set from ``source``, or raise `BadFileError`.

        Keys that are for something else are left out; there must be one that is not.
        """
        keys: dict[str, SigningKey] = {}
        without_id: dict[bytes, SigningKey] = {}
        for entry in _entries(text, source):
            kid, key = entry.get("kid") or "", _signing_key(entry)
            if key is None or not isinstance(kid, str):
                continue
            if not kid:
                without_id[key.proof] = key
            elif keys.setdefault(kid, key) != key:
                raise BadFileError(f"{source}: expected one key for each kid, got two different ones")
        if not keys and not without_id:
            raise BadFileError(f"{source}: expected a key for RS256 of at least {_LEAST_RSA_BITS} bits, ES256 or EdDSA")
        for algorithm, count in Counter(key.algorithm for key in without_id.values()).items():
            if count > MOST_TRIED:
                raise BadFileError(
                    f"{source}: expected at most {MOST_TRIED} keys without a kid for {algorithm}, got {count}"
                )
        return cls(keys, tuple(without_id.values()))

    def get(self, kid: object) -> SigningKey | None:
        """Return the key with the id ``kid``, or None."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def candidates(self, kid: object, algorithm: object) -> Sequence[SigningKey]:
        """Return keys one of which may have signed a token whose ``kid`` is none of ours.

        If it has a kid, those are keys without one; else any keys.
        """
        keys = self._without_id if kid else self._every
        return [key for key in keys if key.algorithm == algorithm][:MOST_TRIED]

    def has(self, proof: bytes) -> bool:
        """Whether the key that ``proof`` is of is one of these."""
        return proof in self._proofs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and (self._keys, self._without_id) == (other._keys, other._without_id)

    def __hash__(self) -> int:
        return hash(self._proofs)


def _entries(text: str | bytes, source: str) -> list[dict[str, Any]]:
    """Return the keys in a set as they stand there, or raise `BadFileError`."""
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadFileError(f"{source}: expected a JSON Web Key Set: an object with a list of keys") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadFileError(f"{source}: expected a list of keys")
    if any(_PRIVATE & entry.keys() for entry in entries):
        raise BadFileError(f"{source}: expected public keys only, got one with its private or secret part")
    return entries


def _signing_key(entry: Mapping[str, Any]) -> SigningKey | None:
    """Return the key of ``entry`` if it is one that we take, with the algorithm that follows from its type alone."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = jwt.PyJWK(dict(entry)).key
    except Exception:  # noqa: BLE001  (values of the wrong kinds fail in any way, and all mean the same)
        return None
    algorithm = _algorithm_for(key)
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key, algorithm, hashlib.sha256(encoded).digest())


def _algorithm_for(key: object) -> str | None:
    if isinstance(key, RSAPublicKey):
        return "RS256" if key.key_size >= _LEAST_RSA_BITS else None
    if isinstance(key, EllipticCurvePublicKey):
        return "ES256" if isinstance(key.curve, SECP256R1) else None
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None
