"""Ports with TLS and mutual TLS, on certificates made for the occasion."""

import datetime as dt
import ipaddress

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from inferd.rpc import callback_unary
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Running

SPIFFE_ID = "spiffe://test.example/client"


class Authority:
    """Signs certificates."""

    def __init__(self):
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.pem = _pem(self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0)))

    def issue(self, *names):
        """Return key and certificate in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        certificate = self._sign(subject, key.public_key(), x509.SubjectAlternativeName(names))
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key_pem, _pem(certificate)

    def _sign(self, subject, public_key, extension):
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(self._name, subject, public_key, x509.random_serial_number())
        builder = builder.not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(hours=1))
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server_pair(authority):
    return authority.issue(x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@pytest.fixture
def running():
    seen = []
    running = Running(
        {"Who": callback_unary(lambda call, message: (seen.append(call.auth_context()), call.reply(b"")))}
    )
    running.seen = seen
    yield running
    running.close()


def secure_port(running, credentials):
    port = running.server.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    return f"127.0.0.1:{port}"


def ask(address, credentials):
    with grpc.secure_channel(address, credentials) as channel:
        return channel.unary_unary(f"/{SERVICE}/Who")(b"", timeout=TIMEOUT_S)


def test_tls(running, authority, server_pair):
    """A caller that trusts the authority gets through, beside the port without TLS."""
    address = secure_port(running, grpc.ssl_server_credentials([server_pair]))
    assert ask(address, grpc.ssl_channel_credentials(authority.pem)) == b""
    assert running.call("Who") == b""
    secured, plain = running.seen
    assert secured["transport_security_type"] == [b"ssl"]
    assert plain["security_level"] == [b"TSI_SECURITY_NONE"]


def test_mutual_tls_proves_the_caller(running, authority, server_pair):
    """Rule 15: the SPIFFE id of the caller's certificate is in the auth context."""
    address = secure_port(running, grpc.ssl_server_credentials([server_pair], authority.pem, True))
    key, certificate = authority.issue(x509.UniformResourceIdentifier(SPIFFE_ID))
    assert ask(address, grpc.ssl_channel_credentials(authority.pem, key, certificate)) == b""
    (context,) = running.seen
    assert context["peer_spiffe_id"] == [SPIFFE_ID.encode()]


@pytest.mark.parametrize("certificate", ["none", "of another authority"])
def test_mutual_tls_refuses_others(running, authority, server_pair, certificate):
    """Without a certificate of the authority there is no call."""
    address = secure_port(running, grpc.ssl_server_credentials([server_pair], authority.pem, True))
    own = (None, None) if certificate == "none" else Authority().issue(x509.DNSName("client"))
    with pytest.raises(grpc.RpcError) as error:
        ask(address, grpc.ssl_channel_credentials(authority.pem, *own))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert running.recorder.calls == []
