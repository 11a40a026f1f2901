"""Bearer tokens issued by this server's operator: 256 random bits each, of which a file holds only the hash.

docs/decisions/security-tokens.md explains why a plain SHA-256 is enough.
"""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Self

from pydantic import BaseModel, field_validator

from inferd.config.section import Section, validation_error
from inferd.config.validation import SettingsError, validate
from inferd.security.authentication.identity import EXPIRED, CredentialError, Identity
from inferd.security.files import BadFileError, parse_yaml, read_text

#: Lets secret scanners find leaked tokens.
PREFIX = "inferd_"

_NAME = re.compile(r"[A-Za-z0-9._@-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

#: Tokens are looked up by this many bytes of their hash; the whole hash is then compared in constant time.
_LOOKUP_BYTES = 8


class StoredToken(Section):
    """One entry of the token file. Errors do not quote values, which may be a secret in the wrong place."""

    name: str
    sha256: str
    expires: datetime | None = None

    @field_validator("name", mode="before")
    @classmethod
    def _validate_name(cls, name: object) -> object:
        if isinstance(name, str) and _NAME.fullmatch(name):
            return name
        text = "expected 1 to 128 letters, digits and ._@-"
        raise validation_error(text)

    @field_validator("sha256", mode="before")
    @classmethod
    def _validate_hash(cls, sha256: object) -> object:
        if isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return sha256
        text = "expected the SHA-256 of a token as 64 hexadecimal digits, in quotes"
        raise validation_error(text)

    @field_validator("expires", mode="before")
    @classmethod
    def _parse_time(cls, expires: object) -> object:
        if isinstance(expires, datetime):
            return expires if expires.tzinfo else expires.replace(tzinfo=UTC)
        if isinstance(expires, date):
            return datetime.combine(expires, time(), UTC)
        if expires is None:
            return None
        text = "expected a time such as 2030-01-31T00:00:00Z"
        raise validation_error(text)


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
            self._identities[digest[:_LOOKUP_BYTES]] = Identity(f"token:{token.name}", digest, expires_at)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file at ``path``. Raises `BadFileError`."""
        return cls.parse(read_text(path), path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Self:
        """Parse ``text``, the content of ``path``. Raises `BadFileError`."""
        parsed = parse_yaml(text, path, _KEYS)
        content = parsed.content
        if not isinstance(content, list):
            raise BadFileError(f"{path}: expected a list of tokens, which may be []")
        for number, entry in enumerate(content):
            if not isinstance(entry, dict) or not _KEYS - {"expires"} <= entry.keys() <= _KEYS:
                text = "expected name, sha256 and optionally expires for each token, nothing else"
                raise BadFileError(f"{parsed.origin_of((str(number),))}: {text}")
        try:
            tokens = validate(_TokenFile, {"tokens": content}, origin_of=lambda part: parsed.origin_of(part[1:])).tokens
        except SettingsError as error:
            raise BadFileError(str(error)) from None
        if len({token.sha256[: 2 * _LOOKUP_BYTES] for token in tokens}) < len(tokens):
            raise BadFileError(f"{path}: expected each token once, got one of them twice")
        return cls(tokens)

    def verify(self, token: str, now: float) -> Identity | None:
        """Return the identity of ``token``, None if it is not in the table. Raises `CredentialError` if it expired."""
        digest = hashlib.sha256(token.encode(errors="surrogatepass")).digest()
        identity = self._identities.get(digest[:_LOOKUP_BYTES])
        if identity is None or not hmac.compare_digest(identity.proof, digest):
            return None
        if identity.expires_at <= now:
            raise CredentialError(EXPIRED)
        return identity

    def revalidate(self, identity: Identity) -> Identity | None:
        """Return ``identity`` with its present expiry, None if its token was revoked or given to another name."""
        current = self._identities.get(identity.proof[:_LOOKUP_BYTES])
        if current is None or (current.principal, current.proof) != (identity.principal, identity.proof):
            return None
        return current


def new_token() -> str:
    """Return a new random token."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """Return the hash of ``token`` that the file holds."""
    return hashlib.sha256(token.encode()).hexdigest()


def format_entry(token: StoredToken) -> str:
    """Return the lines of the file for ``token``."""
    lines = [f'- name: "{token.name}"', f'  sha256: "{token.sha256}"']
    if token.expires is not None:
        lines.append(f"  expires: {token.expires:%Y-%m-%dT%H:%M:%SZ}")
    return "\n".join(lines) + "\n"


def append_token(path: Path, token: StoredToken) -> None:
    """Append ``token`` to the file at ``path``; comments are kept, and a missing file is created.

    Readers see either the old file or the new one. A new file is readable by its owner only; an existing one keeps its
    owner and mode, as the server may run as another user. Concurrent calls wait for each other. Raises `BadFileError`,
    or `OSError` if the file cannot be written.
    """
    path = path.resolve()
    with _locked(path.parent):
        text = _appended(read_text(path) if path.exists() else "", token, path)
        _replace(path, text)


def _appended(text: str, token: StoredToken, path: Path) -> str:
    if not parse_yaml(text, path).content:
        # An empty file or an empty list, []: keep the comments.
        text = "".join(f"{line}\n" for line in text.splitlines() if line.lstrip().startswith("#"))
    elif not text.endswith("\n"):
        text += "\n"
    try:
        TokenTable.parse(text + format_entry(token), path)
    except BadFileError as error:
        raise BadFileError(f"nothing was added: {error}") from None
    return text + format_entry(token)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    # Created with mode 0600 and a random name, so that nothing that another user planted there is written to.
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                before = path.stat()
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
