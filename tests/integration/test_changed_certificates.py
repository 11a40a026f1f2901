"""Certificates that change while connections are open."""

import socket
import ssl

import grpc
import pytest

from inferd.config.security import ClientCertificates, TlsSettings
from inferd.rpc import callback_unary
from inferd.security.tls.server_tls import ServerTls
from tests.certificates import LOCAL_NAMES, Authority
from tests.fakes import FakeClock
from tests.integration.rpc.support import SERVICE, TIMEOUT_S, Running, ask, secure_port


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def running():
    running = Running({"Who": callback_unary(lambda call, message: call.reply(b""))})
    yield running
    running.close()


@pytest.fixture
def server_credentials(authority, tmp_path):
    """Credentials of a server with these files."""
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    tls = ServerTls(TlsSettings(cert_file=files.certificate, key_file=files.key))
    tls.load()
    return tls


def test_changed_certificate(running, authority, server_credentials, tmp_path):
    """New connections get it, even from another CA; open ones continue."""
    address = secure_port(running, server_credentials.grpc_credentials())
    other = Authority("other")
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.pem)) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Who")
        assert call(b"", timeout=TIMEOUT_S) == b""
        other.issue(*LOCAL_NAMES).save(tmp_path)
        server_credentials.load()
        assert ask(address, grpc.ssl_channel_credentials(other.pem)) == b""
        assert call(b"", timeout=TIMEOUT_S) == b""
    with pytest.raises(grpc.RpcError):
        ask(address, grpc.ssl_channel_credentials(authority.pem))


def test_changed_client_ca(running, authority, tmp_path):
    """Clients of the new CA are accepted, those of the old one rejected."""
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    old, new = Authority("old"), Authority("new")
    settings = TlsSettings(
        cert_file=files.certificate,
        key_file=files.key,
        client_ca_file=old.save(tmp_path),
        client_certificates=ClientCertificates.REQUIRED,
    )
    tls = ServerTls(settings)
    tls.load()
    address = secure_port(running, tls.grpc_credentials())
    of_old, of_new = (
        (pair.key, pair.certificate)
        for pair in (old.issue("spiffe://test.example/client"), new.issue("spiffe://test.example/client"))
    )
    assert ask(address, grpc.ssl_channel_credentials(authority.pem, *of_old)) == b""
    new.save(tmp_path)
    tls.load()
    assert ask(address, grpc.ssl_channel_credentials(authority.pem, *of_new)) == b""
    with pytest.raises(grpc.RpcError):
        ask(address, grpc.ssl_channel_credentials(authority.pem, *of_old))


def test_session_is_not_resumed_for_long(running, authority, tmp_path):
    """A resumed session presents no certificate, and the original one may have expired."""
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    client = authority.issue("spiffe://test.example/client").save(tmp_path, "client")
    settings = TlsSettings(
        cert_file=files.certificate,
        key_file=files.key,
        client_ca_file=authority.save(tmp_path),
        client_certificates=ClientCertificates.REQUIRED,
    )
    clock = FakeClock()
    tls = ServerTls(settings, clock=clock)
    tls.load()
    address = secure_port(running, tls.grpc_credentials())
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.load_cert_chain(client.certificate, client.key)
    # Its sessions start with the handshake.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, _ = _handshake(address, context)
    clock.now += 59
    assert _handshake(address, context, session)[1]
    clock.now += 2
    assert not _handshake(address, context, session)[1]


def _handshake(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool]:
    """Return a session that may be resumed later, and whether ``session`` was."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection,
        context.wrap_socket(connection, server_hostname=host, session=session) as encrypted,
    ):
        return encrypted.session, bool(encrypted.session_reused)
