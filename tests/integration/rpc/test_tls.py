"""Ports with TLS and mutual TLS."""

import grpc
import pytest

from inferd.rpc import callback_unary
from tests.certificates import LOCAL_NAMES, Authority, server_credentials
from tests.integration.rpc.support import Running, ask, secure_port

SPIFFE_ID = "spiffe://test.example/client"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def server_pair(authority):
    return authority.issue(*LOCAL_NAMES)


@pytest.fixture
def running():
    seen = []
    running = Running(
        {"Who": callback_unary(lambda call, message: (seen.append(call.auth_context()), call.reply(b"")))}
    )
    running.seen = seen
    yield running
    running.close()


def test_tls(running, authority, server_pair):
    """A client that trusts the authority connects, beside the port without TLS."""
    address = secure_port(running, server_credentials(server_pair))
    assert ask(address, grpc.ssl_channel_credentials(authority.pem)) == b""
    assert running.call("Who") == b""
    secured, plain = running.seen
    assert secured["transport_security_type"] == [b"ssl"]
    assert plain["security_level"] == [b"TSI_SECURITY_NONE"]


def test_mutual_tls_authenticates_the_caller(running, authority, server_pair):
    """The auth context has the SPIFFE id of the client certificate."""
    address = secure_port(running, server_credentials(server_pair, authority))
    own = authority.issue(SPIFFE_ID)
    assert ask(address, grpc.ssl_channel_credentials(authority.pem, own.key, own.certificate)) == b""
    (context,) = running.seen
    assert context["peer_spiffe_id"] == [SPIFFE_ID.encode()]


@pytest.mark.parametrize("certificate", ["none", "of another authority"])
def test_mutual_tls_rejects_other_certificates(running, authority, server_pair, certificate):
    """Without a certificate of the authority there is no call."""
    address = secure_port(running, server_credentials(server_pair, authority))
    other = Authority().issue("client")
    own = (None, None) if certificate == "none" else (other.key, other.certificate)
    with pytest.raises(grpc.RpcError) as error:
        ask(address, grpc.ssl_channel_credentials(authority.pem, *own))
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert running.recorder.calls == []
