"""Who shares a rendering with whom, and when the next one begins."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from inferd.observability.http.scrapes import Renderings
from tests.fakes import FakeClock

COST_S = 0.01
SHARE = 0.2
#: From the beginning of one to that of the next.
PERIOD_S = 0.05


class Setup:
    """Renderings that cost time on a clock which only they and their pauses move on."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.began: list[tuple[str, float]] = []
        self.during_pause: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self.renderings = Renderings(
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


def test_those_who_come_together_share_one() -> None:
    """A single client does not wait."""

    async def test(setup: Setup) -> None:
        assert await setup.ask("a", "a", "a") == [b"a 1"] * 3

    assert run(test).began == [("a", 0.0)]


def test_no_more_than_the_share_of_the_time() -> None:
    """One after the other, as a closed loop asks."""

    async def test(setup: Setup) -> None:
        for number in range(1, 4):
            assert await setup.ask("a") == [f"a {number}".encode()]

    assert run(test).began == [("a", 0.0), ("a", PERIOD_S), ("a", 2 * PERIOD_S)]


def test_who_comes_in_the_pause_shares_the_next_one() -> None:
    """It shows all that had happened when the last of them came."""
    joined: list[asyncio.Future[list[bytes]]] = []

    async def test(setup: Setup) -> None:
        await setup.ask("a")
        setup.during_pause = lambda: joined.append(setup.ask("a"))
        assert await setup.ask("a") == [b"a 2"]
        assert await joined[0] == [b"a 2"]

    assert len(run(test).began) == 2


def test_who_comes_after_it_has_begun_gets_another() -> None:
    """One that is under way may lack what the newcomer asks for."""

    async def test(setup: Setup) -> None:
        first = setup.ask("a")
        while not setup.began:
            await asyncio.sleep(0)
        assert await setup.ask("a") == [b"a 2"]
        assert await first == [b"a 1"]

    run(test)


def test_formats_take_turns() -> None:
    """Each is rendered for itself, and has a pause before it."""

    async def test(setup: Setup) -> None:
        assert await setup.ask("a", "b", "a") == [b"a 1", b"b 2", b"a 1"]

    assert run(test).began == [("a", 0.0), ("b", PERIOD_S)]


def test_a_rendering_that_fails_fails_for_those_who_waited_for_it() -> None:
    """The next one is tried again, after a pause as well."""

    async def test(setup: Setup) -> None:
        setup.error = RuntimeError("broken")
        for asked in [asyncio.ensure_future(setup.renderings.get("a")) for _ in range(2)]:
            with pytest.raises(RuntimeError, match="broken"):
                await asked
        setup.error = None
        assert await setup.ask("a") == [b"a 2"]

    assert run(test).began == [("a", 0.0), ("a", PERIOD_S)]


def test_who_gives_up_takes_it_from_nobody() -> None:
    """Nor does it matter if all have given up."""

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
