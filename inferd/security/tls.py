"""What encrypted ports are made of, read again when the files change."""

import datetime as dt
import logging
import os
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import grpc

from inferd.config.tls import TlsSettings
from inferd.security.certificates import Authorities, ServerPair, read_authorities, read_server_pair
from inferd.security.files import BadFileError, FileWatcher

_log = logging.getLogger(__name__)

#: For how long a session of TLS may be taken up again. Who does so shows no certificate: without a bound of ours, one
#: that has expired since would be good for two days.
_LONGEST_SESSION_S = 60.0


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Loaded:
    """What was read at one time, checked, and made into what each port needs."""

    grpc_configuration: grpc.ServerCertificateConfiguration
    http_context: ssl.SSLContext
    by_role: Mapping[str, ServerPair | Authorities]


class ServerTls:
    """The certificates of the server's ports: those last read from their files and found good.

    Connections that are open keep the certificates that they were opened with; new ones get what is in force. So
    nothing is ever interrupted by a change.

    Threads: ``load`` is called before anything else, and after that by the watcher's thread only; the rest by any.
    Nothing but ``load`` blocks.
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

    def watch(self, watcher: FileWatcher) -> None:
        """Have the files read again when they change; before ``load``."""
        files = (self._cert_file, self._key_file, self._client_ca_file)
        watcher.watch("tls", [file for file in files if file is not None], self.load)

    def load(self) -> None:
        """Read the files; raises `BadFileError` if any of them will not do, and then nothing changes."""
        now = self._now()
        pair = read_server_pair(self._cert_file, self._key_file, now)
        authorities = None if self._client_ca_file is None else read_authorities(self._client_ca_file, now)
        self._loaded = _Loaded(
            grpc_configuration=grpc.ssl_server_certificate_configuration(
                [(pair.key_pem, pair.certificate_pem)], None if authorities is None else authorities.pem
            ),
            http_context=self._http_context(pair, authorities),
            by_role={"certificate": pair} if authorities is None else {"certificate": pair, "client_ca": authorities},
        )
        self._warn_of_loose_permissions()

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return what the gRPC port is opened with; whether callers must show a certificate is fixed by it."""
        given, given_at = self._current.grpc_configuration, self._clock()

        # Called for each new connection, by one of gRPC's threads at a time. What is given anew, be it the same, comes
        # with keys of its own for sessions, so that earlier ones are not known any more.
        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given, given_at
            current, now = self._current.grpc_configuration, self._clock()
            if current is given and now - given_at < _LONGEST_SESSION_S:
                return None
            given, given_at = current, now
            return given

        return grpc.dynamic_ssl_server_credentials(
            given,
            changed,  # type: ignore[arg-type]  # the stubs leave out None, which stands for no change
            self._client_ca_file is not None,
        )

    def http_context(self) -> ssl.SSLContext:
        """Return what a new connection of the HTTP port begins with.

        Where callers of gRPC must show a certificate, those of HTTP are asked for one and may do without.
        """
        return self._current.http_context

    @property
    def expiry_timestamps(self) -> Mapping[str, float]:
        """When what is in force expires, in seconds since the epoch: by ``certificate`` and ``client_ca``."""
        return {role: each.not_after.timestamp() for role, each in self._current.by_role.items()}

    @property
    def lifetimes_s(self) -> Mapping[str, float]:
        """How long what is in force is valid in all, in seconds: by the same names."""
        return {role: each.lifetime.total_seconds() for role, each in self._current.by_role.items()}

    @property
    def _current(self) -> _Loaded:
        if self._loaded is None:
            raise RuntimeError("the certificates were not loaded yet")
        return self._loaded

    def _http_context(self, pair: ServerPair, authorities: Authorities | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Not from the files themselves, which may have changed since they were checked.
            with ExitStack() as stack:
                certificate = stack.enter_context(_as_file(pair.certificate_pem))
                key = stack.enter_context(_as_file(pair.key_pem))
                # The password keeps OpenSSL from asking for one on the terminal.
                context.load_cert_chain(certificate, key, password="")
            if authorities is not None:
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(cadata=authorities.pem.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or "another kind"
            raise BadFileError(f"{self._cert_file}: expected certificates that OpenSSL takes, got {reason}") from None
        return context

    def _warn_of_loose_permissions(self) -> None:
        # No reason to refuse: it is how Kubernetes mounts secrets by default.
        with suppress(OSError):  # it may have gone since it was read
            if self._key_file.stat().st_mode & stat.S_IROTH:
                _log.warning("every user of this machine can read the private key", extra={"file": str(self._key_file)})


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give ``content`` a path for as long as the block lasts, without writing it to a disk."""
    descriptor = os.memfd_create("inferd-tls")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
