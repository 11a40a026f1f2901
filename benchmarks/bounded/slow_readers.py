"""What callers that never read cost the others, compared with callers that read."""

import asyncio
import time
from collections.abc import Callable
from statistics import median

from benchmarks.bounded.target import MIB, Target, ask_for_events, request
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub

_OTHERS = 8
_OF_EACH = 2
_LOGPROBS = 20
_NARROW = (("grpc.http2.lookahead_bytes", 65_535), ("grpc.http2.bdp_probe", 0))

Figures = dict[str, object]


async def measure(target: Target, *, rounds: int, seconds: float, tokens: int) -> Figures:
    """Return the figures; ``tokens`` is how long the answers are that nobody reads."""
    trial = _Trial(target, seconds, tokens)
    await trial.others()
    rates: dict[bool, list[float]] = {True: [], False: []}
    rss = []
    for number in range(rounds):
        for reads in (number % 2 == 0, number % 2 != 0):
            rates[reads].append(await trial.beside(reads=reads))
            rss.append(target.rss_bytes())
    ratios = [slow / quick for quick, slow in zip(rates[True], rates[False], strict=True)]
    return {
        "others' tokens/s beside readers": [round(rate) for rate in rates[True]],
        "beside those that never read": [round(rate) for rate in rates[False]],
        "ratios": [round(ratio, 3) for ratio in ratios],
        "median ratio": round(median(ratios), 3),
        "answers that nobody read": rounds * 2 * _OF_EACH,
        "resident MiB": [round(value / MIB, 1) for value in rss],
    }


class _Trial:
    """One server and its callers."""

    def __init__(self, target: Target, seconds: float, tokens: int) -> None:
        self._target = target
        self._seconds = seconds
        self._tokens = tokens

    async def others(self) -> float:
        """Return the tokens a second of those that read."""
        counts = [0] * _OTHERS
        async with self._target.channel() as channel:
            stub = GenerationServiceStub(channel)
            until = time.monotonic() + self._seconds

            async def go_on(number: int) -> None:
                while time.monotonic() < until:
                    async for response in stub.Generate(request([number + 2] * 16, 64)):
                        counts[number] += len(response.token_ids) if time.monotonic() < until else 0

            await asyncio.gather(*map(go_on, range(_OTHERS)))
        return sum(counts) / self._seconds

    async def beside(self, *, reads: bool) -> float:
        """Return the same beside some more callers, which read or not."""
        tasks = [
            asyncio.create_task(self._again_and_again(one, reads=reads))
            for one in (self._over_grpc, self._over_http)
            for _ in range(_OF_EACH)
        ]
        await asyncio.sleep(0.2)
        rate = await self.others()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return rate

    async def _again_and_again(self, one: Callable[..., object], *, reads: bool) -> None:
        while True:
            await one(reads=reads)  # type: ignore[misc]

    async def _over_grpc(self, *, reads: bool) -> None:
        async with self._target.channel(*_NARROW) as channel:
            call = GenerationServiceStub(channel).Generate(request([3] * 8, self._tokens, logprobs=_LOGPROBS))
            if reads:
                async for _ in call:
                    pass
            else:
                # Begun, and then left alone.
                await call.initial_metadata()
                await self._left_alone()
                call.cancel()

    async def _over_http(self, *, reads: bool) -> None:
        asked = request([3] * 8, self._tokens)
        if reads:
            events = await ask_for_events(self._target, asked, logprobs=5)
            async for _ in events.tokens():
                pass
            await events.close()
            return
        events = await ask_for_events(self._target, asked, narrow=True, logprobs=5)
        try:
            await self._left_alone()
        finally:
            events.writer.transport.abort()

    async def _left_alone(self) -> None:
        """Wait for as long as all others go on, and longer."""
        await asyncio.sleep(3 * self._seconds)
