"""Concurrent scrapes share one rendering."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Format = TypeVar("Format", bound=Hashable)


class ScrapeCoalescer(Generic[Format]):
    """Renders for all waiting clients, using at most ``share`` of the time.

    Rendering holds the interpreter lock, so no call is served at that time: the next rendering starts after a pause
    that follows from the duration of the last one. Each is for all clients that have requested its format by then, so
    no client gets one that started before its request. Used in one event loop.
    """

    def __init__(
        self,
        render: Callable[[Format], bytes],
        *,
        share: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._render = render
        self._pause = (1 - share) / share
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._sleep = sleep
        # By format, in the order of the first request.
        self._waiting: dict[Format, asyncio.Future[bytes]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._next_at = clock()

    async def get(self, wanted: Format) -> bytes:
        """Return a rendering in the format ``wanted`` that starts after this call. Raises the errors of rendering."""
        rendering = self._waiting.get(wanted)
        if rendering is None:
            rendering = self._waiting[wanted] = asyncio.get_running_loop().create_future()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        # A cancelled client must not cancel it for the others.
        return await asyncio.shield(rendering)

    async def _work(self) -> None:
        while self._waiting:
            await self._sleep(max(0.0, self._next_at - self._clock()))
            wanted = next(iter(self._waiting))
            rendering = self._waiting.pop(wanted)
            began_at = self._cpu_clock()
            try:
                rendering.set_result(self._render(wanted))
            except Exception as error:  # noqa: BLE001  (it is for those who wait)
                rendering.set_exception(error)
                # Otherwise asyncio logs it if all clients have cancelled.
                rendering.exception()
            # In CPU time of the thread, which may have waited for others.
            self._next_at = self._clock() + (self._cpu_clock() - began_at) * self._pause
