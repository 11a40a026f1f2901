"""Read certificates and keys, and reject those that clients would not accept or that are weak.

Errors name the file, what was expected and what came; of its content they quote only what a certificate makes public.
"""

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from inferd.security.files import BadFileError
from inferd.small_files import read_bytes

_MAX_FILE_BYTES = 1024 * 1024
_MIN_RSA_BITS = 2048
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_BROKEN_HASHES = (hashes.MD5, hashes.SHA1)
_SERVER_USAGES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
_E = TypeVar("_E", bound=x509.ExtensionType)
_PEM_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerPair:
    """A server's certificate chain and private key.

    ``not_after`` and ``lifetime`` are those of the certificate in the chain that expires first.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    not_after: dt.datetime
    lifetime: dt.timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class Authorities:
    """Certificate authorities to trust; ``not_after`` and ``lifetime`` are those of the one that expires last."""

    pem: bytes
    not_after: dt.datetime
    lifetime: dt.timedelta


def read_server_pair(cert_file: Path, key_file: Path, now: dt.datetime) -> ServerPair:
    """Read a certificate chain and its private key. Raises `BadFileError` unless every client can accept them."""
    certificate_pem, key_pem = _read(cert_file), _read(key_file)
    chain = _certificates(cert_file, certificate_pem)
    for certificate in chain:
        _check_strength(cert_file, certificate)
        _check_dates(cert_file, certificate, now)
    _check_order(cert_file, chain)
    _check_client_support(cert_file, chain[0])
    _check_server_use(cert_file, chain[0])
    if _private_key(key_file, key_pem).public_key() != chain[0].public_key():
        raise BadFileError(f"{key_file}: expected the key of the certificate in {cert_file}, got another key")
    first = min(chain, key=_expiry)
    return ServerPair(
        certificate_pem=certificate_pem, key_pem=key_pem, not_after=_expiry(first), lifetime=_lifetime(first)
    )


def read_authorities(file: Path, now: dt.datetime) -> Authorities:
    """Read CA certificates. Raises `BadFileError` unless all are strong and at least one has not expired."""
    pem = _read(file)
    authorities = _certificates(file, pem)
    for authority in authorities:
        _check_key(file, authority)
        _check_is_authority(file, authority)
    last = max(authorities, key=_expiry)
    if _expiry(last) <= now:
        raise BadFileError(
            f"{file}: expected an authority that is valid now, got none: the last one expired {_utc(_expiry(last))}"
        )
    return Authorities(pem=pem, not_after=_expiry(last), lifetime=_lifetime(last))


def _expiry(certificate: x509.Certificate) -> dt.datetime:
    return certificate.not_valid_after_utc


def _lifetime(certificate: x509.Certificate) -> dt.timedelta:
    return certificate.not_valid_after_utc - certificate.not_valid_before_utc


def _read(file: Path) -> bytes:
    try:
        return read_bytes(file, _MAX_FILE_BYTES)
    except OSError as error:
        raise BadFileError(f"{file}: expected a file that can be read, got: {error.strerror}") from None


def _certificates(file: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadFileError(f"{file}: expected certificates in PEM, got {_kind(pem)}") from None


def _private_key(file: Path, pem: bytes) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise BadFileError(f"{file}: expected a private key without a passphrase, got an encrypted one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadFileError(f"{file}: expected a private key in PEM, got {_kind(pem)}") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise BadFileError(f"{file}: expected an RSA, EC or Ed25519 key, got another kind")
    return key


def _kind(pem: bytes) -> str:
    """Describe the content of a file without quoting it."""
    labels = sorted({label.decode() for label in _PEM_LABEL.findall(pem)})
    if labels:
        return f"malformed PEM labelled {', '.join(labels)}"
    return "an empty file" if not pem.strip() else "a file that is not PEM"


def _check_strength(file: Path, certificate: x509.Certificate) -> None:
    _check_key(file, certificate)
    is_root = certificate.issuer == certificate.subject
    # The signature of a root is not verified by anyone.
    if not is_root and isinstance(certificate.signature_hash_algorithm, _BROKEN_HASHES):
        found = certificate.signature_hash_algorithm.name.upper()
        raise BadFileError(f"{file}: expected a signature with SHA-256 or better, got {found}{_subject(certificate)}")


def _check_key(file: Path, certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        text = f"{file}: expected an RSA, EC or Ed25519 key, got another kind{_subject(certificate)}"
        raise BadFileError(text) from None
    match key:
        case rsa.RSAPublicKey() if key.key_size < _MIN_RSA_BITS:
            expected, found = f"an RSA key of at least {_MIN_RSA_BITS} bits", str(key.key_size)
        case ec.EllipticCurvePublicKey() if not isinstance(key.curve, _CURVES):
            expected, found = "a key on P-256, P-384 or P-521", key.curve.name
        case rsa.RSAPublicKey() | ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return
        case _:
            expected, found = "an RSA, EC or Ed25519 key", "another kind"
    raise BadFileError(f"{file}: expected {expected}, got {found}{_subject(certificate)}")


def _check_is_authority(file: Path, certificate: x509.Certificate) -> None:
    constraints = _extension(file, certificate, x509.BasicConstraints)
    # X.509 version 1 roots have no extensions.
    if constraints is not None and not constraints.ca:
        raise BadFileError(f"{file}: expected CA certificates, got one that is not a CA{_subject(certificate)}")


def _check_client_support(file: Path, certificate: x509.Certificate) -> None:
    """Reject keys that only some clients support: on gRPC's C core the handshake would fail without a reason."""
    key = certificate.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        found = "Ed25519"
    elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP521R1):
        found = "P-521"
    else:
        return
    expected = "an RSA key or one on P-256 or P-384, which every gRPC client supports"
    raise BadFileError(f"{file}: expected {expected}, got {found}{_subject(certificate)}")


def _check_dates(file: Path, certificate: x509.Certificate, now: dt.datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        found = f"one that expired {_utc(certificate.not_valid_after_utc)}"
    elif certificate.not_valid_before_utc > now:
        found = f"one that is not valid before {_utc(certificate.not_valid_before_utc)}"
    else:
        return
    raise BadFileError(
        f"{file}: expected a certificate that is valid now, {_utc(now)}, got {found}{_subject(certificate)}"
    )


def _check_order(file: Path, chain: Sequence[x509.Certificate]) -> None:
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise BadFileError(
                f"{file}: expected each certificate to be followed by the one that signed it, "
                f"got {_name(issuer.subject)} after {_name(certificate.subject)}"
            ) from None


def _check_server_use(file: Path, certificate: x509.Certificate) -> None:
    names = _extension(file, certificate, x509.SubjectAlternativeName)
    kinds = (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier)
    if names is None or not any(isinstance(name, kinds) for name in names):
        raise BadFileError(
            f"{file}: expected a certificate with a host name, IP address or SPIFFE id as subject alternative name, "
            f"got none{_subject(certificate)}"
        )
    usages = _extension(file, certificate, x509.ExtendedKeyUsage)
    if usages is not None and not _SERVER_USAGES.intersection(usages):
        raise BadFileError(f"{file}: expected a certificate for server authentication, got one for other uses only")


def _extension(file: Path, certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except ValueError:
        raise BadFileError(f"{file}: expected a certificate with well-formed extensions, got malformed ones") from None


def _subject(certificate: x509.Certificate) -> str:
    return f" ({_name(certificate.subject)})"


def _name(name: x509.Name) -> str:
    return name.rfc4514_string() or "without a subject"


def _utc(time: dt.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
