"""TLS, mutual TLS and tokens, with certificates of the test."""

import asyncio
from pathlib import Path

import grpc
import pytest

from inferd.client import TLS, AsyncClient, Client, Unauthenticated, Unavailable
from tests.certificates import Authority, Pair, server_credentials
from tests.unit.client.fake_service import FakeService, serving


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def ca(authority, tmp_path_factory) -> Path:
    return authority.save(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server_pair(authority) -> Pair:
    return authority.issue("localhost")


def test_tls_with_given_ca(ca, server_pair):
    """A server with a certificate of the CA is trusted, and gets the token."""
    service = FakeService()
    with (
        serving(service, server_credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=ca), token="t") as client,
    ):
        assert client.infer("m", {"x": 1})["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_asyncio_client_supports_tls(ca, server_pair):
    """In the same way."""
    service = FakeService()

    async def run(address: str):
        async with AsyncClient(address, tls=TLS(ca=str(ca)), token="t") as client:
            return await client.infer("m", {"x": 1})

    with serving(service, server_credentials(server_pair)) as server:
        assert asyncio.run(run(server.address))["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_rejects_certificate_of_other_ca(server_pair, tmp_path):
    """Before anything is sent."""
    service = FakeService()
    with (
        serving(service, server_credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=Authority().save(tmp_path)), token="t", retry=None) as client,
        pytest.raises(Unavailable),
    ):
        client.infer("m", {"x": 1})
    assert service.metadata == []


def test_server_name(authority, ca):
    """A certificate for another name than the address needs ``server_name``."""
    named = server_credentials(authority.issue("inferd.internal"))
    with serving(FakeService(), named) as server:
        with Client(server.address, tls=TLS(ca=ca), retry=None) as client, pytest.raises(Unavailable):
            client.models()
        with Client(server.address, tls=TLS(ca=ca, server_name="inferd.internal")) as client:
            assert client.is_ready()


def test_mutual_tls(authority, ca, server_pair, tmp_path):
    """A server that requires a client certificate rejects clients without one."""
    own = authority.issue("caller").save(tmp_path, "caller")
    mutual = TLS(ca=ca, certificate=own.certificate, key=own.key)
    with serving(FakeService(), server_credentials(server_pair, clients=authority)) as server:
        with Client(server.address, tls=mutual) as client:
            assert client.is_ready("digits")
        with Client(server.address, tls=TLS(ca=ca), retry=None) as client, pytest.raises(Unavailable):
            client.models()


def test_rejected_tokens_are_unauthenticated():
    """Unlike an unreachable server."""
    service = FakeService()

    def check(request, context):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not valid")

    service.on_infer = check
    with (
        serving(service) as server,
        Client(server.address, token="wrong") as client,
        pytest.raises(Unauthenticated, match="the token is not valid"),
    ):
        client.infer("m", {})


def test_missing_files_are_named(tmp_path):
    """In the constructor."""
    with pytest.raises(FileNotFoundError, match=r"ca: No such file or directory: .*nope\.pem"):
        Client("inferd:8001", tls=TLS(ca=tmp_path / "nope.pem"))


def test_invalid_files_are_named(tmp_path):
    """Otherwise the connection would fail without a reason."""
    (tmp_path / "ca.der").write_bytes(b"\x30\x82")
    with pytest.raises(ValueError, match=r"ca: expected a PEM file, got .*ca\.der"):
        Client("inferd:8001", tls=TLS(ca=tmp_path / "ca.der"))
