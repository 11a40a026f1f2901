"""Certificates for tests: CAs, and the certificates that they issue."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)

#: Names of a server on this machine.
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Files:
    """Paths of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Pair:
    """A certificate, with those of intermediate CAs, and its key, in PEM."""

    certificate: bytes
    key: bytes

    @property
    def serial_number(self) -> int:
        """The serial number of the certificate."""
        return x509.load_pem_x509_certificate(self.certificate).serial_number

    def save(self, folder: Path, name: str = "server") -> Files:
        """Write both as ``NAME.pem`` and ``NAME.key``, each replaced atomically; only the owner can read the key."""
        files = Files(folder / f"{name}.pem", folder / f"{name}.key")
        _replace(files.certificate, self.certificate, 0o644)
        _replace(files.key, self.key, 0o600)
        return files


class Authority:
    """A CA; clients and servers trust ``pem``.

    It is a root, unless ``parent`` signs its certificate.
    """

    def __init__(
        self,
        name: str = "test authority",
        *,
        key: PrivateKey | None = None,
        parent: "Authority | None" = None,
        not_after: dt.timedelta = DAY,
    ) -> None:
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        signer = parent or self
        builder = _builder(self._name, signer._name, self._key, not_before=-DAY, not_after=not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem = signer._sign(builder)
        #: The intermediate certificates between its own and the root.
        self._chain = b"" if parent is None else self.pem + parent._chain

    def delegate(self, name: str, *, not_after: dt.timedelta = DAY) -> "Authority":
        """Create an intermediate CA below this one."""
        return Authority(name, parent=self, not_after=not_after)

    def save(self, folder: Path, name: str = "ca") -> Path:
        """Write ``pem`` as ``NAME.pem``."""
        file = folder / f"{name}.pem"
        _replace(file, self.pem, 0o644)
        return file

    def issue(
        self,
        *names: str,
        key: PrivateKey | None = None,
        not_before: dt.timedelta = -HOUR,
        not_after: dt.timedelta = HOUR,
        common_name: str = "test",
        usages: Sequence[x509.ObjectIdentifier] = (),
    ) -> Pair:
        """Issue a certificate for ``names``: host names, IP addresses, or URIs such as a SPIFFE id.

        It is valid from ``not_before`` to ``not_after``, relative to now. Without ``key``, a new key is generated.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name(common_name), self._name, key, not_before=not_before, not_after=not_after)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(_alternative_names(names)), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        return Pair(self._sign(builder) + self._chain, key_pem(key))

    def _sign(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def server_credentials(pair: Pair, clients: Authority | None = None) -> grpc.ServerCredentials:
    """Return credentials of a server with ``pair``, which requires client certificates of ``clients`` if given."""
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)],
        root_certificates=clients.pem if clients else None,
        require_client_auth=clients is not None,
    )


def key_pem(key: PrivateKey, password: bytes | None = None) -> bytes:
    """Return ``key`` in PEM, encrypted if there is a password."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def _alternative_names(names: Sequence[str]) -> list[x509.GeneralName]:
    return [_alternative_name(name) for name in names]


def _alternative_name(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def now() -> dt.datetime:
    """Return the reference time of validity periods."""
    return dt.datetime.now(dt.UTC)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, *, not_before: dt.timedelta, not_after: dt.timedelta
) -> x509.CertificateBuilder:
    signed_at = now()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(signed_at + not_before)
        .not_valid_after(signed_at + not_after)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _replace(file: Path, content: bytes, mode: int) -> None:
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    new.touch(mode)
    new.write_bytes(content)
    new.replace(file)
