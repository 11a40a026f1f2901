"""What the certificate of a client says of it, in the form in which gRPC tells it."""

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


def has_expired(encryption: ssl.SSLObject) -> bool:
    """Whether the client's certificate has expired since it was presented, in a session that has been resumed."""
    certificate = encryption.getpeercert()
    if not certificate:
        return False
    return ssl.cert_time_to_seconds(str(certificate["notAfter"])) <= time.time()
