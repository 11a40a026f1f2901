"""Certificates that change under open connections."""

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
def in_force(authority, tmp_path):
    """What a server with files is opened with."""
    files = authority.issue(*LOCAL_NAMES).save(tmp_path)
    tls = ServerTls(TlsSettings(cert_file=files.certificate, key_file=files.key))
    tls.load()
    return tls


def test_a_changed_certificate(running, authority, in_force, tmp_path):
    """New connections get it, even from another authority; those that are open go on as they were."""
    address = secure_port(running, in_force.grpc_credentials())
    other = Authority("other")
    with grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.pem)) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Who")
        assert call(b"", timeout=TIMEOUT_S) == b""
        other.issue(*LOCAL_NAMES).save(tmp_path)
        in_force.load()
        assert ask(address, grpc.ssl_channel_credentials(other.pem)) == b""
        assert call(b"", timeout=TIMEOUT_S) == b""
    with pytest.raises(grpc.RpcError):
        ask(address, grpc.ssl_channel_credentials(authority.pem))


def test_a_changed_authority_of_clients(running, authority, tmp_path):
    """Who is vouched for by the new one gets in, and by the old one no more."""
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


def test_a_session_is_not_taken_up_for_long(running, authority, tmp_path):
    """Who takes one up shows no certificate again, and the one that it began with may have expired since."""
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
    # Its sessions begin with the handshake, not some time after.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session, _ = _handshake(address, context)
    clock.now += 59
    assert _handshake(address, context, session)[1]
    clock.now += 2
    assert not _handshake(address, context, session)[1]


def _handshake(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLSession | None, bool]:
    """Return a session that may be taken up later, and whether ``session`` was."""
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as connection,
        context.wrap_socket(connection, server_hostname=host, session=session) as encrypted,
    ):
        return encrypted.session, bool(encrypted.session_reused)
