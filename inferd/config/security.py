"""Settings of TLS, authentication and authorization. Secrets are never settings: settings name the files of secrets."""

from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from inferd.addresses import is_loopback
from inferd.config.section import Section, validation_error

_TRUST_DOMAIN_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-_")


class ClientCertificates(StrEnum):
    """Whether clients must present a certificate."""

    NONE = "none"
    REQUIRED = "required"


class TlsSettings(Section):
    """TLS of the gRPC and HTTP ports, and of metrics unless security.metrics_tls is false. Off without a cert_file."""

    cert_file: Path | None = None
    """The server's certificate in PEM, followed by the intermediate certificates. This file and the two below are \
reloaded when they change."""
    key_file: Path | None = None
    """The certificate's private key in PEM, not encrypted."""
    client_ca_file: Path | None = None
    """CA certificates in PEM that client certificates are verified against."""
    client_certificates: ClientCertificates = ClientCertificates.NONE
    """none or required: whether clients must present a certificate issued by client_ca_file. /livez and /readyz on \
the metrics port never require one."""

    @property
    def enabled(self) -> bool:
        """Whether TLS is on."""
        return self.cert_file is not None

    @model_validator(mode="after")
    def _validate_files(self) -> Self:
        if self.cert_file is None and self.key_file is not None:
            raise validation_error("expected the certificate that belongs to key_file, got none", setting="cert_file")
        if self.cert_file is not None and self.key_file is None:
            raise validation_error("expected the private key that belongs to cert_file, got none", setting="key_file")
        required = self.client_certificates is ClientCertificates.REQUIRED
        if required and not self.enabled:
            raise validation_error("expected none without a cert_file, got required", setting="client_certificates")
        if required and self.client_ca_file is None:
            text = "expected a file of CA certificates, as client_certificates is required, got none"
            raise validation_error(text, setting="client_ca_file")
        if not required and self.client_ca_file is not None:
            text = "expected required, as client_ca_file is given, got none"
            raise validation_error(text, setting="client_certificates")
        return self


class JwtSettings(Section):
    """JSON Web Tokens in the authorization header, signed by a trusted issuer. On with jwks_file or jwks_url."""

    jwks_file: Path | None = None
    """JSON Web Key Set with the issuer's public keys; reloaded when it changes."""
    jwks_url: str | None = None
    """URL of the key set: https, or http on this machine. Fetched every refresh_s and for unknown keys."""
    issuer: str = ""
    """Required value of the iss claim. Must be set."""
    audience: list[str] = Field(default_factory=list)
    """Accepted values of the aud claim, of which a token must name one. Must be set."""
    principal_claim: str = Field(default="sub", min_length=1)
    """Claim that identifies the caller; its principal is jwt:VALUE."""
    leeway_s: float = Field(default=30.0, ge=0.0, le=600.0)
    """Accepted difference between the issuer's clock and the server's."""
    refresh_s: float = Field(default=300.0, ge=1.0, le=86_400.0)
    """Interval of fetching jwks_url."""

    @property
    def enabled(self) -> bool:
        """Whether JSON Web Tokens are accepted."""
        return self.jwks_file is not None or self.jwks_url is not None

    @field_validator("jwks_url")
    @classmethod
    def _validate_jwks_url(cls, url: str | None) -> str | None:
        # Without the value, which may contain a password.
        if url is not None and not _is_safe(url):
            text = "expected https://… without user and password, or http:// to a loopback address"
            raise validation_error(text)
        return url

    @model_validator(mode="after")
    def _validate_complete(self) -> Self:
        if self.jwks_file is not None and self.jwks_url is not None:
            text = "expected either jwks_file or jwks_url, got both"
            raise validation_error(text, setting="jwks_url")
        for name, value in (("issuer", self.issuer), ("audience", self.audience)):
            if self.enabled and not value:
                text = f"expected the {name} of the tokens, got none"
                raise validation_error(text, setting=name)
        return self


class SpiffeSettings(Section):
    """SPIFFE IDs in client certificates. On with a trust domain; requires mutual TLS."""

    trust_domains: list[str] = Field(default_factory=list)
    """Accepted trust domains; the principal is the whole ID, such as spiffe://prod/ns/a/sa/b."""

    @field_validator("trust_domains")
    @classmethod
    def _validate_trust_domains(cls, trust_domains: list[str]) -> list[str]:
        for name in trust_domains:
            if not name or not all(character in _TRUST_DOMAIN_CHARACTERS for character in name):
                text = f"expected trust domains in lower case, without spiffe://, got {name!r}"
                raise validation_error(text)
        return trust_domains


class SecuritySettings(Section):
    """Authentication and authorization. Without tokens_file, jwt or spiffe, calls need no authentication."""

    tokens_file: Path | None = None
    """YAML file of bearer tokens, with their names and SHA-256 hashes; `inferd token new` adds to it. Reloaded when \
it changes."""
    jwt: JwtSettings = JwtSettings()
    """JSON Web Tokens."""
    spiffe: SpiffeSettings = SpiffeSettings()
    """SPIFFE IDs."""
    policy_file: Path | None = None
    """YAML file of authorization rules and quotas. Without it, every authenticated caller may call everything. \
Reloaded when it changes."""
    open_health: bool = True
    """Answer health checks without authentication."""
    open_model_health: bool = False
    """Answer them for names of models too, and list these. If false, and callers need a credential for other calls, \
models are unknown to health checks without one."""
    open_reflection: bool = False
    """Answer server reflection without authentication."""
    tls: TlsSettings = TlsSettings()
    """TLS of the ports."""
    metrics_tls: bool | None = None
    """Whether the metrics port uses the same TLS; defaults to yes if TLS is on."""

    @property
    def authenticates(self) -> bool:
        """Whether callers must authenticate."""
        return self.tokens_file is not None or self.jwt.enabled or bool(self.spiffe.trust_domains)

    @model_validator(mode="after")
    def _validate_policy_file(self) -> Self:
        if self.policy_file is not None and not self.authenticates:
            text = "expected tokens_file, jwt or spiffe to be set too: rules match the names of authenticated callers"
            raise validation_error(text, setting="policy_file")
        return self

    @model_validator(mode="after")
    def _validate_metrics_tls(self) -> Self:
        if self.metrics_tls and not self.tls.enabled:
            text = "expected false without a security.tls.cert_file, got true"
            raise validation_error(text, setting="metrics_tls")
        return self

    @model_validator(mode="after")
    def _validate_spiffe(self) -> Self:
        if self.spiffe.trust_domains and self.tls.client_certificates is not ClientCertificates.REQUIRED:
            text = "expected required, as spiffe.trust_domains is set, got none"
            raise validation_error(text, setting="tls.client_certificates")
        return self


def _is_safe(url: str) -> bool:
    """Whether ``url`` is https, or http on this machine, and holds no credentials."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if not host or parts.username is not None or parts.password is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
