"""The server's TLS configuration, reloaded when its files change."""

import datetime as dt
import logging
import os
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from inferd.config.security import TlsSettings
from inferd.security.files import BadFileError, FileWatcher
from inferd.security.tls.certificates import Authorities, ServerPair, read_authorities, read_server_pair

_log = logging.getLogger(__name__)

#: How long a TLS session can be resumed. A resumed session presents no certificate: without this limit, one that has
#: expired since would be accepted for two days.
_MAX_SESSION_S = 60.0

#: A certificate expires soon when this share of its validity period is left.
_SOON = 0.1


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """Certificates that were read and checked together, in the form that each port needs."""

    grpc_configuration: grpc.ServerCertificateConfiguration
    http_context: ssl.SSLContext
    metrics_context: ssl.SSLContext
    by_role: Mapping[str, ServerPair | Authorities]


class ServerTls:
    """The certificates of the server's ports, as last loaded from valid files.

    New connections use the current certificates and open ones keep theirs, so a reload interrupts nothing.

    Threads: ``load`` is called before anything else, and after that by the watcher's thread only, as ``log_expiry``;
    the rest by any.
    Only ``load`` blocks.
    """

    def __init__(
        self,
        settings: TlsSettings,
        *,
        now: Callable[[], dt.datetime] = _utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if settings.cert_file is None or settings.key_file is None:
            raise ValueError("expected settings with a certificate and its key")
        self._cert_file, self._key_file = settings.cert_file, settings.key_file
        self._client_ca_file = settings.client_ca_file
        self._now = now
        self._clock = clock
        self._loaded: _Loaded | None = None
        #: What the log has said about the loaded certificates: "soon" or "expired", by role.
        self._logged: dict[str, str] = {}

    def watch(self, watcher: FileWatcher) -> None:
        """Reload when the files change, and log when certificates expire; call before ``load``."""
        files = (self._cert_file, self._key_file, self._client_ca_file)
        watcher.watch("tls", [file for file in files if file is not None], self.load)
        watcher.add_check(self.log_expiry)

    def load(self) -> None:
        """Read the files. Raises `BadFileError` if any of them is invalid; nothing changes then."""
        now = self._now()
        pair = read_server_pair(self._cert_file, self._key_file, now)
        authorities = None if self._client_ca_file is None else read_authorities(self._client_ca_file, now)
        self._loaded = _Loaded(
            grpc_configuration=grpc.ssl_server_certificate_configuration(
                [(pair.key_pem, pair.certificate_pem)], None if authorities is None else authorities.pem
            ),
            http_context=self._context(pair, authorities, ssl.CERT_REQUIRED),
            metrics_context=self._context(pair, authorities, ssl.CERT_OPTIONAL),
            by_role={"certificate": pair} if authorities is None else {"certificate": pair, "client_ca": authorities},
        )
        self._logged.clear()
        self._warn_if_world_readable()

    def log_expiry(self) -> None:
        """Log once that a loaded certificate will expire soon, and once that it has expired."""
        if self._loaded is None:
            return
        now = self._now()
        for role, each in self._loaded.by_role.items():
            facts = {"file": str(self._file_of(role)), "expires": each.not_after.isoformat(timespec="seconds")}
            if each.not_after <= now:
                if self._logged.get(role) != "expired":
                    _log.error("certificate has expired: new connections fail until its file is replaced", extra=facts)
                    self._logged[role] = "expired"
            elif each.not_after - now <= _SOON * each.lifetime and role not in self._logged:
                _log.warning("certificate expires soon: replace its file, which is read again", extra=facts)
                self._logged[role] = "soon"

    def _file_of(self, role: str) -> Path | None:
        return self._client_ca_file if role == "client_ca" else self._cert_file

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return credentials for the gRPC port; whether clients must present a certificate cannot change later."""
        used, used_since = self._current.grpc_configuration, self._clock()

        # Called for each new connection, by one gRPC thread at a time. A returned configuration, even an equal one,
        # gets new session keys, so earlier sessions can no longer be resumed.
        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used, used_since
            current, now = self._current.grpc_configuration, self._clock()
            if current is used and now - used_since < _MAX_SESSION_S:
                return None
            used, used_since = current, now
            return used

        return grpc.dynamic_ssl_server_credentials(
            used,
            changed,  # type: ignore[arg-type]  # the stubs leave out None, which stands for no change
            self._client_ca_file is not None,
        )

    def http_context(self) -> ssl.SSLContext:
        """Return the context for a new connection to the HTTP port, which requires client certificates if gRPC does."""
        return self._current.http_context

    def metrics_context(self) -> ssl.SSLContext:
        """Return the context for a new connection to the metrics port.

        If gRPC requires client certificates, this port requests one and accepts connections without.
        """
        return self._current.metrics_context

    @property
    def expiry_timestamps(self) -> Mapping[str, float]:
        """Expiry of the current ``certificate`` and ``client_ca``, in seconds since the epoch."""
        return {role: each.not_after.timestamp() for role, each in self._current.by_role.items()}

    @property
    def lifetimes_s(self) -> Mapping[str, float]:
        """Validity period of each, in seconds, by the same names."""
        return {role: each.lifetime.total_seconds() for role, each in self._current.by_role.items()}

    @property
    def _current(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError("the certificates are not loaded yet")
        return self._loaded

    def _context(
        self, pair: ServerPair, authorities: Authorities | None, client_certificates: ssl.VerifyMode
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Not from the original files, which may have changed since they were checked.
            with ExitStack() as stack:
                certificate = stack.enter_context(_as_file(pair.certificate_pem))
                key = stack.enter_context(_as_file(pair.key_pem))
                # Without a password, OpenSSL would prompt for one on the terminal.
                context.load_cert_chain(certificate, key, password="")
            if authorities is not None:
                context.verify_mode = client_certificates
                context.load_verify_locations(cadata=authorities.pem.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "another kind"
            raise BadFileError(f"{self._cert_file}: expected certificates that OpenSSL accepts, got {reason}") from None
        return context

    def _warn_if_world_readable(self) -> None:
        # Only a warning: Kubernetes mounts secrets like this by default.
        with suppress(OSError):  # it may have been deleted since it was read
            if self._key_file.stat().st_mode & stat.S_IROTH:
                _log.warning("private key file is readable by every user", extra={"file": str(self._key_file)})


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Yield a path to ``content``, which is not written to a disk."""
    descriptor = os.memfd_create("inferd-tls")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
