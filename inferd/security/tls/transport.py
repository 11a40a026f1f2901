"""Open the ports of one server with or without TLS, and warn of what is not protected."""

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from inferd.addresses import is_loopback
from inferd.config.security import ClientCertificates
from inferd.config.settings import Settings
from inferd.rpc import Server
from inferd.security.files import FileWatcher, chosen_by
from inferd.security.tls.server_tls import ServerTls

_log = logging.getLogger(__name__)


class Transport:
    """TLS for all ports of a server, or none.

    Threads: ``start`` and ``listen`` are called by the thread that starts the server, the rest by any.
    """

    def __init__(self, settings: Settings, files: FileWatcher) -> None:
        self._settings = settings
        self._files = files
        security = settings.security
        self._tls = ServerTls(security.tls) if security.tls.enabled else None
        with_metrics = self._tls is not None if security.metrics_tls is None else security.metrics_tls
        #: Returns the context for a new connection to the HTTP port; None without TLS.
        self.http_context: Callable[[], ssl.SSLContext] | None = None if self._tls is None else self._tls.http_context
        #: The same for the metrics port.
        self.metrics_context: Callable[[], ssl.SSLContext] | None = (
            self._tls.metrics_context if self._tls is not None and with_metrics else None
        )

    def start(self) -> None:
        """Load and watch the certificates, and warn of insecure settings. Raises `BadFileError`."""
        if self._tls is not None:
            self._tls.watch(self._files)
            with chosen_by("security.tls"):
                self._tls.load()
        for insecure in insecure_settings(self._settings):
            _log.warning(insecure.text, extra={"set": insecure.settings})

    def listen(self, server: Server) -> int:
        """Open the gRPC port of ``server`` and return it. Raises RuntimeError naming the address if it is taken."""
        address = self._settings.server.grpc_address
        if self._tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._tls.grpc_credentials())

    def certificate_expiry(self) -> Mapping[str, float]:
        """Return when the loaded certificates expire, by their use, in seconds since the epoch."""
        return {} if self._tls is None else self._tls.expiry_timestamps

    def certificate_lifetimes_s(self) -> Mapping[str, float]:
        """Return the validity periods of the loaded certificates, by their use."""
        return {} if self._tls is None else self._tls.lifetimes_s


@dataclass(frozen=True, slots=True)
class InsecureSetting:
    """An unprotected aspect of the server, and the settings that protect it."""

    text: str
    settings: str


def insecure_settings(settings: Settings) -> Iterator[InsecureSetting]:
    """Yield what is not protected, unless only this machine can connect."""
    server = settings.server
    if is_loopback(server.host) and (server.http_host is None or is_loopback(server.http_host)):
        return
    security = settings.security
    if not security.tls.enabled:
        yield InsecureSetting(
            "no TLS: anyone on the network path can read and change all traffic, including credentials",
            "security.tls.cert_file and security.tls.key_file",
        )
    if not security.authenticates and security.tls.client_certificates is ClientCertificates.NONE:
        yield InsecureSetting(
            "no authentication: every machine that can connect may call every method",
            "security.tokens_file, security.jwt or security.tls.client_certificates",
        )
