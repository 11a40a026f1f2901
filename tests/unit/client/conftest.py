"""A fake server, and clients for it."""

from collections.abc import Iterator

import pytest

from inferd.client import Client
from tests.unit.client.both import CALLERS, Caller
from tests.unit.client.fake_service import FakeService, Serving, serving


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def server(service: FakeService) -> Iterator[Serving]:
    with serving(service) as running:
        yield running


@pytest.fixture
def client(server: Serving) -> Iterator[Client]:
    with Client(server.address, timeout_s=10) as connected:
        yield connected


@pytest.fixture(params=CALLERS.values(), ids=CALLERS)
def call(request: pytest.FixtureRequest) -> Caller:
    return request.param
