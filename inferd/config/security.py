"""Who may call, and how the connection is protected. Secrets themselves are never settings: these name their files."""

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from inferd.config.loopback import is_loopback
from inferd.config.section import Section, refusal
from inferd.config.tls import ClientCertificates, TlsSettings


class JwtSettings(Section):
    """JSON Web Tokens in the authorization header, signed by an issuer that you trust. On with a source of keys."""

    jwks_file: Path | None = None
    """JSON Web Key Set with the issuer's public keys; read again when it changes."""
    jwks_url: str | None = None
    """The same from a URL, https or, on this machine, http; fetched again every refresh_s and for an unknown key."""
    issuer: str = ""
    """What the claim iss must be; required."""
    audience: list[str] = Field(default_factory=list)
    """What the claim aud must name one of; required."""
    principal_claim: str = Field(default="sub", min_length=1)
    """The claim that names the caller: its principal is jwt: and this."""
    leeway_s: float = Field(default=30.0, ge=0.0, le=600.0)
    """How far the issuer's clock may be from this one."""
    refresh_s: float = Field(default=300.0, ge=1.0, le=86_400.0)
    """How often jwks_url is fetched."""

    @property
    def enabled(self) -> bool:
        """Whether tokens of this kind are taken."""
        return self.jwks_file is not None or self.jwks_url is not None

    @field_validator("jwks_url")
    @classmethod
    def _url_is_safe(cls, url: str | None) -> str | None:
        # What is wrong with it is told without it: it might hold a password.
        if url is not None and not _is_safe(url):
            text = "expected https://… without user and password, or http:// to a loopback address"
            raise refusal(text)
        return url

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.jwks_file is not None and self.jwks_url is not None:
            text = "expected either jwks_file or jwks_url, got both"
            raise refusal(text, setting="jwks_url")
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            if self.enabled and not value:
                text = f"expected the {name} of the tokens, got none"
                raise refusal(text, setting=name)
        return self


class SpiffeSettings(Section):
    """Client certificates with SPIFFE IDs. On with a trust domain, and only with mutual TLS."""

    trust_domains: list[str] = Field(default_factory=list)
    """Trust domains whose identities are taken; the principal is the whole ID, such as spiffe://prod/ns/a/sa/b."""

    @field_validator("trust_domains")
    @classmethod
    def _are_names(cls, trust_domains: list[str]) -> list[str]:
        for name in trust_domains:
            if not name or not all(character in _TRUST_DOMAIN_CHARACTERS for character in name):
                text = f"expected trust domains in lower case, without spiffe://, got {name!r}"
                raise refusal(text)
        return trust_domains


_TRUST_DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


class SecuritySettings(Section):
    """Authentication and authorization. Without any of tokens_file, jwt and spiffe everybody may call."""

    tokens_file: Path | None = None
    """YAML file of bearer tokens, of each its name and its SHA-256; `inferd token new` adds to it. Read again when it \
changes."""
    jwt: JwtSettings = JwtSettings()
    """JSON Web Tokens."""
    spiffe: SpiffeSettings = SpiffeSettings()
    """Client certificates."""
    policy_file: Path | None = None
    """YAML file of rules: who may call what, and how much. Without it everybody who is authenticated may call \
everything. Read again when it changes."""
    open_health: bool = True
    """Answer health checks of callers without credentials."""
    open_reflection: bool = False
    """Answer server reflection to callers without credentials."""
    tls: TlsSettings = TlsSettings()
    """TLS of the gRPC port."""
    http_tls: bool | None = None
    """Whether the HTTP port has the same TLS; by default if there is any."""

    @property
    def authenticates(self) -> bool:
        """Whether callers have to say who they are."""
        return self.tokens_file is not None or self.jwt.enabled or bool(self.spiffe.trust_domains)

    @model_validator(mode="after")
    def _policy_has_somebody(self) -> Self:
        if self.policy_file is not None and not self.authenticates:
            text = "expected a tokens_file, jwt or spiffe beside it: without them nobody has a name for rules to match"
            raise refusal(text, setting="policy_file")
        return self

    @model_validator(mode="after")
    def _http_has_a_certificate(self) -> Self:
        if self.http_tls and not self.tls.enabled:
            text = "expected false without a security.tls.cert_file, got true"
            raise refusal(text, setting="http_tls")
        return self

    @model_validator(mode="after")
    def _identities_come_with_certificates(self) -> Self:
        if self.spiffe.trust_domains and self.tls.client_certificates is not ClientCertificates.REQUIRED:
            text = "expected required, as there are spiffe.trust_domains, got none"
            raise refusal(text, setting="tls.client_certificates")
        return self


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
