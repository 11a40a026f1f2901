"""What a server leaves open to other machines."""

from collections.abc import Iterator
from dataclasses import dataclass

from inferd.config.loopback import is_loopback
from inferd.config.settings import Settings
from inferd.config.tls import ClientCertificates


@dataclass(frozen=True, slots=True)
class Exposure:
    """What anyone can do, and the settings that prevent it."""

    text: str
    settings: str


def exposures(settings: Settings) -> Iterator[Exposure]:
    """Yield what an operator may not have meant to leave open; nothing if only this machine can connect."""
    if is_loopback(settings.server.host):
        return
    security = settings.security
    if not security.tls.enabled:
        yield Exposure(
            "no TLS: whoever is between this server and its callers can read and change all that is sent, "
            "credentials too",
            "security.tls.cert_file and security.tls.key_file",
        )
    if not security.authenticates and security.tls.client_certificates is ClientCertificates.NONE:
        yield Exposure(
            "no authentication: every machine that can connect may call everything",
            "security.tokens_file, security.jwt or security.tls.client_certificates",
        )
