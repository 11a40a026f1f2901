"""TLS, mutual TLS and tokens, with certificates made for the test."""

import asyncio

import grpc
import pytest

from inferd.client import TLS, AsyncClient, Client, Unauthenticated, Unavailable
from tests.unit.client.certificates import Authority, Pair
from tests.unit.client.fake_service import FakeService, serving


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server_pair(authority) -> Pair:
    return authority.issue("localhost")


def _credentials(pair: Pair, clients: Authority | None = None) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(pair.key, pair.certificate)],
        root_certificates=clients.certificate if clients else None,
        require_client_auth=clients is not None,
    )


def test_tls_with_a_given_authority(authority, server_pair):
    """A server whose certificate the given authority signed is trusted, and gets the token."""
    service = FakeService()
    with (
        serving(service, _credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=authority.file), token="t") as client,
    ):
        assert client.infer("m", {"x": 1})["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_asyncio_has_tls_too(authority, server_pair):
    """The asyncio client makes the same connection."""
    service = FakeService()

    async def run(address: str):
        async with AsyncClient(address, tls=TLS(ca=str(authority.file)), token="t") as client:
            return await client.infer("m", {"x": 1})

    with serving(service, _credentials(server_pair)) as server:
        assert asyncio.run(run(server.address))["x"] == 1
    assert service.metadata[0]["authorization"] == "Bearer t"


def test_strangers_are_not_trusted(server_pair, tmp_path):
    """A certificate of another authority ends the connection before anything is sent."""
    service = FakeService()
    with (
        serving(service, _credentials(server_pair)) as server,
        Client(server.address, tls=TLS(ca=Authority(tmp_path).file), token="t", retry=None) as client,
        pytest.raises(Unavailable),
    ):
        client.infer("m", {"x": 1})
    assert service.metadata == []


def test_other_names_need_to_be_given(authority):
    """A certificate for another name than the address is trusted if the caller says which name to expect."""
    named = _credentials(authority.issue("inferd.internal"))
    with serving(FakeService(), named) as server:
        with Client(server.address, tls=TLS(ca=authority.file), retry=None) as client, pytest.raises(Unavailable):
            client.models()
        with Client(server.address, tls=TLS(ca=authority.file, server_name="inferd.internal")) as client:
            assert client.is_ready()


def test_mutual_tls(authority, server_pair):
    """A server that asks for a client certificate gets it, and refuses a client without one."""
    pair = authority.issue("caller")
    mutual = TLS(ca=authority.file, certificate=pair.certificate_file, key=pair.key_file)
    with serving(FakeService(), _credentials(server_pair, clients=authority)) as server:
        with Client(server.address, tls=mutual) as client:
            assert client.is_ready("digits")
        with Client(server.address, tls=TLS(ca=authority.file), retry=None) as client, pytest.raises(Unavailable):
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
    with pytest.raises(FileNotFoundError, match=r"nope\.pem"):
        Client("inferd:8001", tls=TLS(ca=tmp_path / "nope.pem"))
