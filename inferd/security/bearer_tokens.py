"""Bearer tokens that we have given out: 256 random bits each, of which only a hash is kept.

See docs/decisions/security-credentials.md for why a plain SHA-256 does.
"""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, field_validator

from inferd.config.section import Section, refusal
from inferd.config.validation import SettingsError, validate
from inferd.security.files import BadFileError
from inferd.security.identity import CredentialError, Identity
from inferd.security.yaml_file import parse_yaml, read_text

#: Lets scanners of repositories and logs find tokens that were lost.
PREFIX = "inferd_"

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

#: Of a hash; what tokens are found by. What is left of the comparison takes the same time for all of them.
_FINDING_BYTES = 8


class StoredToken(Section):
    """One token in the file. Values that are refused are not quoted: they may be a secret in the wrong place."""

    name: str
    sha256: str
    expires: datetime | None = None

    @field_validator("name", mode="before")
    @classmethod
    def _is_a_name(cls, name: object) -> object:
        if isinstance(name, str) and _NAME.fullmatch(name):
            return name
        text = "expected 1 to 128 letters, digits and ._@-"
        raise refusal(text)

    @field_validator("sha256", mode="before")
    @classmethod
    def _is_a_hash(cls, sha256: object) -> object:
        if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return sha256
        text = "expected the SHA-256 of a token as 64 hexadecimal digits, in quotes"
        raise refusal(text)

    @field_validator("expires", mode="before")
    @classmethod
    def _is_a_time(cls, expires: object) -> object:
        if isinstance(expires, datetime):
            return expires if expires.tzinfo else expires.replace(tzinfo=UTC)
        if isinstance(expires, date):
            return datetime.combine(expires, time(), UTC)
        if expires is None:
            return None
        text = "expected a time such as 2030-01-31T00:00:00Z"
        raise refusal(text)


_KEYS = StoredToken.model_fields.keys()


class _TokenFile(BaseModel):
    tokens: list[StoredToken]


class TokenTable:
    """The tokens of one version of the file. Immutable."""

    def __init__(self, tokens: list[StoredToken]) -> None:
        self._identities: dict[bytes, Identity] = {}
        for token in tokens:
            digest = bytes.fromhex(token.sha256)
            expires_at = token.expires.timestamp() if token.expires else float("inf")
            self._identities[digest[:_FINDING_BYTES]] = Identity(f"token:{token.name}", digest, expires_at)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file at ``path``, or raise `BadFileError`."""
        return cls.parse(read_text(path), path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Self:
        """Take ``text`` for the content of ``path``, or raise `BadFileError`."""
        content = parse_yaml(text, path, _KEYS)
        if not isinstance(content, list):
            raise BadFileError(f"{path}: expected a list of tokens, which may be []")
        if not all(isinstance(entry, dict) and _KEYS - {"expires"} <= entry.keys() <= _KEYS for entry in content):
            raise BadFileError(f"{path}: expected of each token its name, its sha256, maybe expires, and nothing else")
        try:
            tokens = validate(_TokenFile, {"tokens": content}, origin_of=lambda _: str(path)).tokens
        except SettingsError as error:
            raise BadFileError(str(error)) from None
        if len({token.sha256[: 2 * _FINDING_BYTES] for token in tokens}) < len(tokens):
            raise BadFileError(f"{path}: expected each token once, got one of them twice")
        return cls(tokens)

    def check(self, token: str, now: float) -> Identity | None:
        """Return whose ``token`` is, or None. Raises `CredentialError` if it has expired."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        identity = self._identities.get(digest[:_FINDING_BYTES])
        if identity is None or not hmac.compare_digest(identity.proof, digest):
            return None
        if identity.expires_at <= now:
            raise CredentialError("the bearer token has expired")
        return identity

    def renewed(self, identity: Identity) -> Identity | None:
        """Return what ``identity`` is today, or None if its token is not given out to the same name any more."""
        found = self._identities.get(identity.proof[:_FINDING_BYTES])
        if found is None or (found.principal, found.proof) != (identity.principal, identity.proof):
            return None
        return found


def new_token() -> str:
    """Return a secret that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(token: str) -> str:
    """Return what is stored of ``token``."""
    return hashlib.sha256(token.encode()).hexdigest()
