"""TLS, mutual TLS and tokens, with certificates made for the test."""

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


def test_tls_with_a_given_authority(ca, server_pair):
    """A server whose certificate the given authority signed is trusted, and gets the token."""
    service = FakeService()
    with (
        serving(service, server_credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=ca), token="t") as client,
    ):
        assert client.infer("m", {"x": 1})["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_asyncio_has_tls_too(ca, server_pair):
    """The asyncio client makes the same connection."""
    service = FakeService()

    async def run(address: str):
        async with AsyncClient(address, tls=TLS(ca=str(ca)), token="t") as client:
            return await client.infer("m", {"x": 1})

    with serving(service, server_credentials(server_pair)) as server:
        assert asyncio.run(run(server.address))["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_strangers_are_not_trusted(server_pair, tmp_path):
    """A certificate of another authority ends the connection before anything is sent."""
    service = FakeService()
    with (
        serving(service, server_credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=Authority().save(tmp_path)), token="t", retry=None) as client,
        pytest.raises(Unavailable),
    ):
        client.infer("m", {"x": 1})
    assert service.metadata == []


def test_other_names_need_to_be_given(authority, ca):
    """A certificate for another name than the address is trusted if the caller says which name to expect."""
    named = server_credentials(authority.issue("inferd.internal"))
    with serving(FakeService(), named) as server:
        with Client(server.address, tls=TLS(ca=ca), retry=None) as client, pytest.raises(Unavailable):
            client.models()
        with Client(server.address, tls=TLS(ca=ca, server_name="inferd.internal")) as client:
            assert client.is_ready()


def test_mutual_tls(authority, ca, server_pair, tmp_path):
    """A server that asks for a client certificate gets it, and refuses a client without one."""
    own = authority.issue("caller").save(tmp_path, "caller")
    mutual = TLS(ca=ca, certificate=own.certificate, key=own.key)
    with serving(FakeService(), server_credentials(server_pair, clients=authority)) as server:
        with Client(server.address, tls=mutual) as client:
            assert client.is_ready("digits")
        with Client(server.address, tls=TLS(ca=ca), retry=None) as client, pytest.raises(Unavailable):
            client.models()


def test_refused_tokens_are_unauthenticated():
    """A server that does not accept the token is told apart from one that cannot be reached."""
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
    """A certificate file that is not there fails when the client is made, by its name."""
    with pytest.raises(FileNotFoundError, match=r"ca: No such file or directory: .*nope\.pem"):
        Client("inferd:8001", tls=TLS(ca=tmp_path / "nope.pem"))


def test_files_of_another_kind_are_named(tmp_path):
    """A file that holds no certificate would show only as a failed connection."""
    (tmp_path / "ca.der").write_bytes(b"\x30\x82")
    with pytest.raises(ValueError, match=r"ca: expected a PEM file, got .*ca\.der"):
        Client("inferd:8001", tls=TLS(ca=tmp_path / "ca.der"))
