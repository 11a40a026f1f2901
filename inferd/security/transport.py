"""How the connections to one server are protected."""

import logging
import ssl
from collections.abc import Callable, Mapping

from inferd.config.settings import Settings
from inferd.rpc import Server
from inferd.security.exposure import exposures
from inferd.security.files import FileWatcher
from inferd.security.tls import ServerTls

_log = logging.getLogger(__name__)


class Transport:
    """TLS for both ports of a server, or none.

    Threads: ``start`` and ``listen`` are called by the one that starts the server; the rest by any.
    """

    def __init__(self, settings: Settings, files: FileWatcher) -> None:
        self._settings = settings
        self._files = files
        security = settings.security
        self._tls = ServerTls(security.tls) if security.tls.enabled else None
        with_http = self._tls is not None if security.http_tls is None else security.http_tls
        #: What each new connection of the HTTP port begins with; None is for no TLS.
        self.http_context: Callable[[], ssl.SSLContext] | None = (
            self._tls.http_context if self._tls is not None and with_http else None
        )

    def start(self) -> None:
        """Read the certificates, and have them watched from now on; warn of what is left open.

        Raises `BadFileError` for a file that cannot be used.
        """
        if self._tls is not None:
            self._tls.watch(self._files)
            self._tls.load()
        for exposure in exposures(self._settings):
            _log.warning(exposure.text, extra={"set": exposure.settings})

    def listen(self, server: Server) -> int:
        """Open the gRPC port of ``server`` and return it. Raises RuntimeError naming the address if it is taken."""
        address = self._settings.server.grpc_address
        if self._tls is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._tls.grpc_credentials())

    def certificate_expiry(self) -> Mapping[str, float]:
        """When the certificates that are in force expire, by what they are for; seconds since the epoch."""
        return {} if self._tls is None else self._tls.expiry_timestamps

    def certificate_lifetimes_s(self) -> Mapping[str, float]:
        """How long they are valid in all, by the same names."""
        return {} if self._tls is None else self._tls.lifetimes_s
