"""Scrapes that come together share one rendering."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Format = TypeVar("Format", bound=Hashable)


class Renderings(Generic[Format]):
    """Renders for all who wait, and takes no more than ``share`` of the time for it.

    To render holds the interpreter lock, so that no call is served meanwhile: the next rendering begins only after a
    pause that follows from how long the last one took. Each is for everyone who has asked for its format by then, so
    no client gets one that began before its request. Used in one event loop.
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
        # By format, in the order in which they were first asked for.
        self._waiting: dict[Format, asyncio.Future[bytes]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._next_at = clock()

    async def get(self, wanted: Format) -> bytes:
        """Return a rendering in the format ``wanted`` that begins after this was called. Raises what rendering does."""
        rendering = self._waiting.get(wanted)
        if rendering is None:
            rendering = self._waiting[wanted] = asyncio.get_running_loop().create_future()
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        # One who gives up must not take it from the others.
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
                # Or it would be complained of if they have given up.
                rendering.exception()
            # By the time that the thread itself took: it may have waited for others meanwhile.
            self._next_at = self._clock() + (self._cpu_clock() - began_at) * self._pause
