"""Which clients share a rendering, and when the next one starts."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from inferd.observability.scrapes import ScrapeCoalescer
from tests.fakes import FakeClock

COST_S = 0.01
SHARE = 0.2
#: Time between the starts of two renderings.
PERIOD_S = 0.05


class Setup:
    """Renderings that take time on a fake clock, which only they and their pauses advance."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.began: list[tuple[str, float]] = []
        self.during_pause: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self.renderings = ScrapeCoalescer(
            self._render, share=SHARE, clock=self.clock, cpu_clock=self.clock, sleep=self._sleep
        )

    def ask(self, *formats: str) -> "asyncio.Future[list[bytes]]":
        return asyncio.gather(*(self.renderings.get(each) for each in formats))

    def _render(self, wanted: str) -> bytes:
        self.began.append((wanted, round(self.clock() - 100, 6)))
        self.clock.advance(COST_S)
        if self.error is not None:
            raise self.error
        return f"{wanted} {len(self.began)}".encode()

    async def _sleep(self, seconds: float) -> None:
        if seconds:
            self.clock.advance(seconds)
            self.during_pause()
        await asyncio.sleep(0)


def run(test: Callable[[Setup], Coroutine[None, None, None]]) -> Setup:
    setup = Setup()
    asyncio.run(test(setup))
    return setup


def test_concurrent_clients_share_rendering() -> None:
    """A single client does not wait."""

    async def test(setup: Setup) -> None:
        assert await setup.ask("a", "a", "a") == [b"a 1"] * 3

    assert run(test).began == [("a", 0.0)]


def test_renderings_use_limited_share_of_time() -> None:
    """One after the other, as in a closed loop."""

    async def test(setup: Setup) -> None:
        for number in range(1, 4):
            assert await setup.ask("a") == [f"a {number}".encode()]

    assert run(test).began == [("a", 0.0), ("a", PERIOD_S), ("a", 2 * PERIOD_S)]


def test_clients_in_pause_share_next_rendering() -> None:
    """It includes all events before the last of them arrived."""
    joined: list[asyncio.Future[list[bytes]]] = []

    async def test(setup: Setup) -> None:
        await setup.ask("a")
        setup.during_pause = lambda: joined.append(setup.ask("a"))
        assert await setup.ask("a") == [b"a 2"]
        assert await joined[0] == [b"a 2"]

    assert len(run(test).began) == 2


def test_client_during_rendering_gets_next_one() -> None:
    """The present one may lack recent events."""

    async def test(setup: Setup) -> None:
        first = setup.ask("a")
        while not setup.began:
            await asyncio.sleep(0)
        assert await setup.ask("a") == [b"a 2"]
        assert await first == [b"a 1"]

    run(test)


def test_formats_are_rendered_separately() -> None:
    """In turn, each after a pause."""

    async def test(setup: Setup) -> None:
        assert await setup.ask("a", "b", "a") == [b"a 1", b"b 2", b"a 1"]

    assert run(test).began == [("a", 0.0), ("b", PERIOD_S)]


def test_failed_rendering_fails_for_its_clients() -> None:
    """The next one is tried again, after a pause."""

    async def test(setup: Setup) -> None:
        setup.error = RuntimeError("broken")
        for asked in [asyncio.ensure_future(setup.renderings.get("a")) for _ in range(2)]:
            with pytest.raises(RuntimeError, match="broken"):
                await asked
        setup.error = None
        assert await setup.ask("a") == [b"a 2"]

    assert run(test).began == [("a", 0.0), ("a", PERIOD_S)]


def test_cancelled_client_does_not_affect_others() -> None:
    """Even if all have cancelled."""

    async def test(setup: Setup) -> None:
        leaving, staying = (asyncio.ensure_future(setup.renderings.get("a")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"a 1"
        gone = asyncio.ensure_future(setup.renderings.get("a"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await setup.ask("b") == [b"b 3"]

    run(test)
