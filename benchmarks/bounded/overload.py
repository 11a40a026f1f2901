"""Ten times as many requests as can be served, in an open loop with deadlines, and what retries find afterwards."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc

from benchmarks.bounded.target import MIB, PATIENCE_S, Outcome, Target, generate, resident_at_rest, some_request, whole
from inferd._generated.inferd.v1 import generation_pb2 as pb
from inferd._generated.inferd.v1.generation_pb2_grpc import GenerationServiceStub
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

_FACTOR = 10.0
_CALLERS = 48
_REFUSED = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
_CONNECTIONS = 4
_STREAMED = 0.05

Figures = dict[str, Any]


@dataclass(slots=True)
class _Load:
    """An open loop of calls."""

    target: Target
    timeout_s: float
    channels: list[grpc.aio.Channel]
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    outcomes: list[Outcome] = field(default_factory=list)
    late_starts: int = 0
    began_at: float = 0.0

    async def capacity(self, seconds: float) -> float:
        """Return how many requests a second are complete while a fixed number of callers ask again and again.

        The first half of ``seconds`` is not counted, in which few have ended yet.
        """
        until = time.monotonic() + seconds
        done = await asyncio.gather(*(self._ask_until(until, since=until - seconds / 2) for _ in range(_CALLERS)))
        return sum(done) / (seconds / 2)

    async def _ask_until(self, until: float, *, since: float) -> int:
        count = 0
        while time.monotonic() < until:
            outcome = await self._ask(some_request(self.draw))
            count += outcome.code is grpc.StatusCode.OK and since <= outcome.ended_at <= until
        return count

    async def run(self, rate: float, seconds: float) -> None:
        """Call at random times, however late the answers are."""
        at = time.monotonic()
        self.began_at = self.began_at or at
        until = at + seconds
        async with asyncio.TaskGroup() as group:
            while at < until:
                at += self.draw.expovariate(rate)
                delay = at - time.monotonic()
                self.late_starts += delay < -0.1
                # Answers must be read even by a client that is behind.
                await asyncio.sleep(max(0.0, delay))
                group.create_task(self._call())

    async def _call(self) -> None:
        self.outcomes.append(await self._ask(some_request(self.draw), self.timeout_s))

    async def retry(self, refused: list[Outcome]) -> list[Outcome]:
        """Call once more for each of ``refused``, after its hint."""
        return list(await asyncio.gather(*(self._after(outcome) for outcome in refused)))

    async def _after(self, refused: Outcome) -> Outcome:
        assert refused.hint_s is not None, "chosen so"
        await asyncio.sleep(max(0.0, refused.ended_at + refused.hint_s - time.monotonic()))
        return await self._ask(refused.asked, self.timeout_s)

    async def _ask(self, asked: pb.GenerateRequest, timeout_s: float = PATIENCE_S) -> Outcome:
        """Call; few of the answers are streamed, as the client has to keep up."""
        channel = self.draw.choice(self.channels)
        if self.draw.random() < _STREAMED:
            return await generate(GenerationServiceStub(channel), asked, timeout_s)
        return await whole(GRPCInferenceServiceStub(channel), asked, timeout_s)


async def measure(target: Target, *, seconds: float, times: int, timeout_s: float, capacity_s: float) -> Figures:
    """Overload ``target`` for ``seconds``, several ``times``, and return the figures.

    Those who retry were refused within the last second, as many as are served in a second; the others stay away.
    """
    channels = [target.channel() for _ in range(_CONNECTIONS)]
    load = _Load(target, timeout_s, channels)
    capacity = await load.capacity(capacity_s)
    before = target.metrics()
    resident, retried = [await resident_at_rest(target)], []
    for _ in range(times):
        retried += await _overload(load, capacity, seconds)
        resident.append(await resident_at_rest(target))
    ended = {
        name.rpartition("/")[2]: count - before.get(name, 0.0)
        for name, count in target.metrics().items()
        if name.startswith(("inferd_generation_requests_total/", "inferd_rejected_total/"))
    }
    for channel in channels:
        await channel.close(None)
    figures = _figures(load, capacity, retried)
    figures["offered, of the capacity"] = round(figures["offered"] / (times * seconds * capacity), 2)
    figures["resident MiB, before and after each time"] = [round(rss / MIB, 1) for rss in resident]
    figures["resident growth, of each time"] = [round(after / before - 1.0, 4) for before, after in pairwise(resident)]
    return figures | {"server counted": {k: int(v) for k, v in ended.items() if v}}


async def _overload(load: _Load, capacity: float, seconds: float) -> list[Outcome]:
    """Ask for ten times ``capacity``; return what those got who were refused at the end and came back."""
    running = asyncio.create_task(load.run(_FACTOR * capacity, seconds))
    await asyncio.sleep(seconds)
    since = time.monotonic() - 1.0
    chosen = [each for each in load.outcomes if each.code in _REFUSED and each.hint_s and each.ended_at >= since]
    retried = await load.retry(chosen[:: max(1, round(len(chosen) / max(1.0, capacity)))])
    await running
    return retried


def _figures(load: _Load, capacity: float, retried: list[Outcome]) -> Figures:
    codes = Counter(outcome.code for outcome in load.outcomes)
    refused = [outcome for outcome in load.outcomes if outcome.code in _REFUSED]
    admitted = len(load.outcomes) - len(refused)
    hints = sorted(outcome.hint_s for outcome in refused if outcome.hint_s is not None)
    again = Counter(outcome.code not in _REFUSED for outcome in retried)
    return {
        "capacity, requests/s": round(capacity, 1),
        "offered": len(load.outcomes),
        "sent late by the client": load.late_starts,
        "by status": {code.name: count for code, count in codes.most_common()},
        "admitted": admitted,
        "of those in time": round(codes[grpc.StatusCode.OK] / max(1, admitted), 4),
        "late, by second": sorted(
            Counter(
                int(outcome.ended_at - load.began_at)
                for outcome in load.outcomes
                if outcome.code not in (grpc.StatusCode.OK, *_REFUSED)
            ).items()
        ),
        "refusals with a hint": round(len(hints) / max(1, len(refused)), 4),
        "median hint, s": hints[len(hints) // 2] if hints else None,
        "retries": len(retried),
        "tokens of those refused again": sorted(o.asked.max_tokens for o in retried if o.code in _REFUSED),
        "of those admitted": round(again[True] / max(1, len(retried)), 3),
    }
