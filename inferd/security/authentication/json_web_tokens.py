"""JSON Web Tokens: verifies them with the public keys of a trusted issuer, from a file or a URL (JWKS)."""

import hashlib
import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from inferd.config.security import JwtSettings
from inferd.periodic_thread import PeriodicThread
from inferd.security.authentication.identity import EXPIRED, INVALID, CredentialError, Identity
from inferd.security.files import BadFileError, read_text

_log = logging.getLogger(__name__)

_PRINCIPAL_PREFIX = "jwt:"
_MAX_NAME_CHARACTERS = 256
_MIN_RSA_BITS = 2048

#: Keys that are tried for a token that names none: each takes about 0.1 ms, and every caller can make such tokens.
MAX_TRIED_KEYS = 4

#: Members of a JSON Web Key that are not public.
_PRIVATE_MEMBERS = frozenset({"d", "k", "p", "q"})

_FETCH_TIMEOUT_S = 10.0
_MAX_JWKS_BYTES = 1024 * 1024

#: Tokens with unknown keys cause a fetch, but at most one in this time: unauthenticated callers can make such tokens.
_MIN_FETCH_INTERVAL_S = 10.0

_PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key and the one algorithm that it is used with. ``proof`` is its hash."""

    key: _PublicKey
    algorithm: str
    proof: bytes


class KeySet:
    """An issuer's public keys, by id or without one, which RFC 7517 allows. Immutable."""

    def __init__(self, keys: Mapping[str, SigningKey], without_id: Sequence[SigningKey] = ()) -> None:
        self._keys = dict(keys)
        self._without_id = tuple(without_id)
        self._all = (*self._without_id, *self._keys.values())
        self._proofs = frozenset(key.proof for key in self._all)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file at ``path``. Raises `BadFileError`."""
        return cls.parse(read_text(path), str(path))

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> Self:
        """Parse a JSON Web Key Set from ``source``. Raises `BadFileError`.

        Keys of other kinds or for other uses are skipped; at least one must be left.
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
            raise BadFileError(f"{source}: expected a key for RS256 of at least {_MIN_RSA_BITS} bits, ES256 or EdDSA")
        for algorithm, count in Counter(key.algorithm for key in without_id.values()).items():
            if count > MAX_TRIED_KEYS:
                raise BadFileError(
                    f"{source}: expected at most {MAX_TRIED_KEYS} keys without a kid for {algorithm}, got {count}"
                )
        return cls(keys, tuple(without_id.values()))

    def get(self, kid: object) -> SigningKey | None:
        """Return the key with the id ``kid``, or None."""
        return self._keys.get(kid) if isinstance(kid, str) else None

    def candidates(self, kid: object, algorithm: object) -> Sequence[SigningKey]:
        """Return the keys to try for a token whose ``kid`` is not in the set.

        For a token with a kid these are keys without one, otherwise any.
        """
        keys = self._without_id if kid else self._all
        return [key for key in keys if key.algorithm == algorithm][:MAX_TRIED_KEYS]

    def has(self, proof: bytes) -> bool:
        """Return whether the set contains the key with this ``proof``."""
        return proof in self._proofs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and (self._keys, self._without_id) == (other._keys, other._without_id)

    def __hash__(self) -> int:
        return hash(self._proofs)


def _entries(text: str | bytes, source: str) -> list[dict[str, Any]]:
    """Return the unparsed keys of a set. Raises `BadFileError`."""
    try:
        entries = json.loads(text)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadFileError(f"{source}: expected a JSON Web Key Set: an object with a list of keys") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadFileError(f"{source}: expected a list of keys")
    if any(_PRIVATE_MEMBERS & entry.keys() for entry in entries):
        raise BadFileError(f"{source}: expected public keys only, got one with its private or secret part")
    return entries


def _signing_key(entry: Mapping[str, Any]) -> SigningKey | None:
    """Return the key of ``entry`` with the algorithm that follows from its type, None if it is not supported."""
    operations = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        key = jwt.PyJWK(dict(entry)).key
    except Exception:  # noqa: BLE001  (malformed values raise errors of many types, which all mean the same)
        return None
    algorithm = _algorithm_for(key)
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        return None
    encoded = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(key, algorithm, hashlib.sha256(encoded).digest())


def _algorithm_for(key: object) -> str | None:
    if isinstance(key, RSAPublicKey):
        return "RS256" if key.key_size >= _MIN_RSA_BITS else None
    if isinstance(key, EllipticCurvePublicKey):
        return "ES256" if isinstance(key.curve, SECP256R1) else None
    return "EdDSA" if isinstance(key, Ed25519PublicKey) else None


class JwtVerifier:
    """Verifies tokens with one set of keys. Immutable.

    ``on_unknown_key`` is called for a token that none of the keys has signed, as the key may be new; it must not block.
    """

    def __init__(self, settings: JwtSettings, keys: KeySet, on_unknown_key: Callable[[], None]) -> None:
        self.keys = keys
        self._settings = settings
        self._on_unknown_key = on_unknown_key
        self._required = ["exp", "iss", "aud", settings.principal_claim]

    def verify(self, token: str, _now: float) -> Identity | None:
        """Return the identity of ``token``, None if it is not a JSON Web Token. Raises `CredentialError`."""
        if token.count(".") != 2:
            return None
        try:
            return self._verify(token)
        except jwt.ExpiredSignatureError:
            raise CredentialError(EXPIRED) from None
        except (jwt.ImmatureSignatureError, jwt.InvalidIssuedAtError):
            raise CredentialError(INVALID, cacheable=False) from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            # All but the first come from hostile contents. Neither the caller nor the log gets to know the reason.
            raise CredentialError(INVALID) from None

    def revalidate(self, identity: Identity) -> Identity | None:
        """Return ``identity``, or None if the issuer no longer publishes the key that signed its token."""
        is_ours = identity.principal.startswith(_PRINCIPAL_PREFIX)
        return identity if is_ours and self.keys.has(identity.proof) else None

    def _verify(self, token: str) -> Identity:
        header = jwt.get_unverified_header(token)
        kid = header.get("kid")
        named = self.keys.get(kid)
        if named is not None:
            return self._verify_with(named, token)
        for key in self.keys.candidates(kid, header.get("alg")):
            try:
                return self._verify_with(key, token)
            except jwt.InvalidSignatureError:
                continue
        self._on_unknown_key()
        # Not cacheable: the key may be published later, or its URL may have been fetched too recently to try again now.
        raise CredentialError(INVALID, cacheable=False)

    def _verify_with(self, key: SigningKey, token: str) -> Identity:
        """Return the identity of ``token``. Raises PyJWT's `InvalidSignatureError` if another key has signed it."""
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            # Never the algorithm that the token names: a public key could be used as an HMAC secret.
            algorithms=[key.algorithm],
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": self._required},
        )
        principal = _PRINCIPAL_PREFIX + _validated_name(claims[settings.principal_claim])
        return Identity(principal, key.proof, float(claims["exp"]) + settings.leeway_s)


def _validated_name(claim: object) -> str:
    """Return ``claim`` if it is fit for policies and logs. Raises `CredentialError`."""
    if isinstance(claim, str) and 0 < len(claim) <= _MAX_NAME_CHARACTERS and claim.isprintable():
        return claim
    raise CredentialError(INVALID)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which might lead away from https."""

    def redirect_request(self, *_args: object) -> None:
        """Return None, so that the redirect is an error."""


def fetch(url: str) -> bytes:
    """Return the content of ``url``. Raises `OSError`, or `http.client.HTTPException` if the reply is not HTTP."""
    opener = urllib.request.build_opener(_NoRedirects)
    with opener.open(url, timeout=_FETCH_TIMEOUT_S) as response:
        content: bytes = response.read(_MAX_JWKS_BYTES + 1)
    if len(content) > _MAX_JWKS_BYTES:
        raise OSError(f"expected at most {_MAX_JWKS_BYTES} bytes")
    return content


class JwksFetcher:
    """Fetches keys from a URL every ``period_s`` seconds and on request, and passes changed ones to ``on_keys``.

    When a fetch fails, the previous keys stay in use. Threads: ``request`` any, it does not block; ``on_keys`` is
    called by the fetcher's own thread, and by ``start``.
    """

    def __init__(
        self,
        url: str,
        *,
        period_s: float,
        on_keys: Callable[[KeySet], None],
        fetch: Callable[[str], bytes] = fetch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._on_keys = on_keys
        self._fetch = fetch
        self._clock = clock
        self._keys: KeySet | None = None
        self._tried_at = -_MIN_FETCH_INTERVAL_S
        self._fetched_at = clock()
        self._thread = PeriodicThread("inferd-jwks", period_s=period_s, action=self.refresh)
        #: Failed fetches.
        self.failures = 0

    def start(self) -> None:
        """Fetch once, which may fail, and start the thread."""
        self.refresh()
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; do not wait long for a fetch to end."""
        self._thread.stop(timeout_s=1.0)

    def request(self) -> None:
        """Fetch soon, unless the last fetch was a moment ago."""
        if self._clock() - self._tried_at >= _MIN_FETCH_INTERVAL_S:
            self._tried_at = self._clock()
            self._thread.wake()

    def age_s(self) -> float:
        """Return the seconds since the last successful fetch, or since construction if there was none."""
        return self._clock() - self._fetched_at

    def refresh(self) -> None:
        """Fetch now; blocks."""
        self._tried_at = self._clock()
        try:
            keys = KeySet.parse(self._fetch(self._url), self._url)
        except (OSError, http.client.HTTPException, BadFileError) as error:
            self.failures += 1
            _log.error("JWKS fetch failed; keeping the previous keys", extra=_log_fields(self._url, error))
            return
        self._fetched_at = self._clock()
        if keys != self._keys:
            self._keys = keys
            self._on_keys(keys)
            _log.info("JWKS loaded", extra={"url": self._url})


def _log_fields(url: str, error: Exception) -> dict[str, str]:
    # Text that the remote side chose stays out of the log.
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP status {error.code}"
    elif isinstance(error, http.client.HTTPException):
        reason = f"expected an HTTP response, got {type(error).__name__}"
    else:
        reason = str(error)
    return {"url": url, "reason": reason}
