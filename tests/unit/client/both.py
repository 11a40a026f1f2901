"""The same calls with the blocking and with the asyncio client."""

import asyncio
from collections.abc import Callable, Mapping

from inferd.client import AsyncClient, Client

#: Creates a client and calls a method of it; items of a stream are returned as a list.
Caller = Callable[..., object]


def blocking(address: str, method: str, *arguments: object, settings: Mapping[str, object] = {}, **named: object):
    with Client(address, **settings) as client:
        result = getattr(client, method)(*arguments, **named)
        return list(result) if method == "stream" else result


def in_asyncio(address: str, method: str, *arguments: object, settings: Mapping[str, object] = {}, **named: object):
    async def run() -> object:
        async with AsyncClient(address, **settings) as client:
            result = getattr(client, method)(*arguments, **named)
            return [item async for item in result] if method == "stream" else await result

    return asyncio.run(run())


CALLERS: dict[str, Caller] = {"Client": blocking, "AsyncClient": in_asyncio}
