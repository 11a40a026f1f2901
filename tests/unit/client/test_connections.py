"""Connections: made again soon after an outage, and bound to a process and an event loop."""

import asyncio
import socket

import pytest

from inferd.client import AsyncClient, Client, Unavailable
from tests.unit.client.fake_service import FakeService, serving

#: gRPC's own pauses would have come to 8 s and more by then.
ATTEMPTS = 6
#: How long the next attempt to connect may take to come: longer than ours on a busy machine, shorter than gRPC's.
LONGEST_PAUSE_S = 7.0


def test_an_outage_does_not_grow():
    """However often nobody answers, the next attempt comes within about a second, so that a server is found again."""
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
                # Nobody can talk to what ends the connection at once.
                listener.accept()[0].close()
        with serving(service, address=address):
            assert client.infer("m", {"x": 2}, wait_for_ready=True)["x"] == 2


def test_an_event_loop_of_its_own():
    """A client that was used in one event loop says so in another, in every way to use it."""
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


def test_a_client_that_was_never_used_is_closed_anywhere():
    """It has no connection, and so no event loop."""
    client = AsyncClient("127.0.0.1:1")
    asyncio.run(client.close())
    asyncio.run(client.close())
