"""Certificates that change under open connections."""

import grpc
import pytest

from inferd.config.tls import ClientCertificates, TlsSettings
from inferd.rpc import callback_unary
from inferd.security.tls import ServerTls
from tests.certificates import LOCAL_NAMES, Authority
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
