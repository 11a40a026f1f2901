"""The same calls with the blocking and with the asyncio client."""

import asyncio
from collections.abc import Callable, Mapping

from inferd.client import AsyncClient, Client

#: Methods that return an answer as it comes.
_GENERATES = {"generate", "chat"}

#: Creates a client and calls a method of it; returns the items of a stream as a list, and the whole of an answer.
Caller = Callable[..., object]


def blocking(address: str, method: str, *arguments: object, settings: Mapping[str, object] = {}, **named: object):
    with Client(address, **settings) as client:
        result = getattr(client, method)(*arguments, **named)
        if method in _GENERATES:
            return result.result()
        return list(result) if method == "stream" else result


def in_asyncio(address: str, method: str, *arguments: object, settings: Mapping[str, object] = {}, **named: object):
    async def run() -> object:
        async with AsyncClient(address, **settings) as client:
            result = getattr(client, method)(*arguments, **named)
            if method in _GENERATES:
                return await result.result()
            return [item async for item in result] if method == "stream" else await result

    return asyncio.run(run())


CALLERS: dict[str, Caller] = {"Client": blocking, "AsyncClient": in_asyncio}
