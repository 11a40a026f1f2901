"""Connections: reopened soon after an outage, and bound to a process and an event loop."""

import asyncio
import socket

import pytest

from inferd.client import AsyncClient, Client, Unavailable
from tests.unit.client.fake_service import FakeService, serving

#: gRPC's default intervals would have grown to 8 s and more by then.
ATTEMPTS = 6
#: Maximum time until the next attempt to connect: longer than ours on a busy machine, shorter than gRPC's.
LONGEST_PAUSE_S = 7.0


def test_reconnects_after_long_outage():
    """However many attempts have failed, the next one follows within about a second."""
    service = FakeService()
    with serving(service) as server:
        port = int(server.address.rpartition(":")[2])
        address = f"127.0.0.1:{port}"
        client = Client(address, retry=None)
        assert client.infer("m", {"x": 1})["x"] == 1
    with client:
        with pytest.raises(Unavailable):
            client.infer("m", {"x": 1})
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(LONGEST_PAUSE_S)
            for _ in range(ATTEMPTS):
                # Connections are closed at once.
                listener.accept()[0].close()
        with serving(service, address=address):
            assert client.infer("m", {"x": 2}, wait_for_ready=True)["x"] == 2


def test_client_belongs_to_one_event_loop():
    """Any use in another event loop raises."""
    service = FakeService()
    with serving(service) as server:
        client = AsyncClient(server.address)

        async def use():
            return await client.infer("m", {"x": 1})

        async def stream():
            return [item async for item in client.stream("m", [{"x": 1}])]

        assert asyncio.run(use())["x"] == 1
        for again in (use, stream, client.models, client.is_ready, client.wait_until_ready, client.close):
            with pytest.raises(RuntimeError, match="belongs to the event loop of its first call: make one in each"):
                asyncio.run(again())


def test_unused_client_can_be_closed_anywhere():
    """It has no connection, and so no event loop."""
    client = AsyncClient("127.0.0.1:1")
    asyncio.run(client.close())
    asyncio.run(client.close())
