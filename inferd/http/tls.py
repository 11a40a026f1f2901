"""TLS of a connection: the identity of its client in gRPC's form, and the memory of its reads."""

import asyncio
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

#: Names in gRPC's authentication context.
_CERTIFICATE = "x509_pem_cert"
_URIS = "peer_uri"
_SPIFFE_ID = "peer_spiffe_id"

_MAX_SPIFFE_ID = 2048
_MAX_TRUST_DOMAIN = 255


class Peer:
    """The client of one connection; ``encryption`` is None without TLS.

    An expired certificate counts as none: a resumed session was verified when it began.
    """

    __slots__ = ("_auth_context", "_certificate", "valid_for_s")

    def __init__(self, encryption: ssl.SSLObject | None) -> None:
        #: Remaining validity of the certificate; infinite without one.
        self.valid_for_s = math.inf if encryption is None else _valid_for_s(encryption)
        valid = encryption is not None and self.valid_for_s > 0
        self._certificate = encryption.getpeercert(binary_form=True) if encryption is not None and valid else None
        self._auth_context: Mapping[str, Sequence[bytes]] | None = None

    @property
    def has_certificate(self) -> bool:
        """True if the client presented a certificate that was valid when the connection began."""
        return self._certificate is not None

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return gRPC's authentication context, empty without a certificate. Any thread."""
        if self._auth_context is None:
            self._auth_context = auth_context_of(self._certificate)
        return self._auth_context


def auth_context_of(certificate: bytes | None) -> Mapping[str, Sequence[bytes]]:
    """Return the authentication context of a connection whose client presented ``certificate`` (DER), or none."""
    if certificate is None:
        return MappingProxyType({})
    parsed = x509.load_der_x509_certificate(certificate)
    context: dict[str, Sequence[bytes]] = {_CERTIFICATE: (parsed.public_bytes(Encoding.PEM),)}
    uris = tuple(uri.encode() for uri in _uris(parsed))
    if uris:
        context[_URIS] = uris
    # As in gRPC's core: only if it is the only URI.
    if len(uris) == 1 and _is_spiffe_id(uris[0]):
        context[_SPIFFE_ID] = uris
    return MappingProxyType(context)


def _uris(certificate: x509.Certificate) -> Sequence[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _is_spiffe_id(uri: bytes) -> bool:
    if not uri.startswith(b"spiffe://") or len(uri) > _MAX_SPIFFE_ID:
        return False
    domain, _, path = uri.removeprefix(b"spiffe://").partition(b"/")
    return len(domain) <= _MAX_TRUST_DOMAIN and bool(path)


def _valid_for_s(encryption: ssl.SSLObject) -> float:
    certificate = encryption.getpeercert()
    if not certificate:
        return math.inf
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()


def limit_tls_reads(transport: asyncio.BaseTransport, size: int) -> None:
    """Read ``size`` bytes at a time from ``transport``, if it uses TLS; call it when the handshake is complete.

    asyncio keeps a buffer of 256 KiB for each connection otherwise, and offers no setting. A version of asyncio with
    other attribute names keeps its buffer.
    """
    protocol = getattr(transport, "_ssl_protocol", None)
    if protocol is None or not (hasattr(protocol, "_ssl_buffer") and hasattr(protocol, "_ssl_buffer_view")):
        return
    protocol.max_size = size
    protocol._ssl_buffer = bytearray(size)
    protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)
