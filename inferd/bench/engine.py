"""Send the requests of one step, closed or open loop, on one event loop.

The clock is that of the event loop, so tests use virtual time. The transport is passed as `Send`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

import numpy as np

from inferd.bench.attempt import Answer, Attempt, Failure
from inferd.bench.loads import Arrival, ClosedLoop, Load
from inferd.bench.pace import Pace
from inferd.bench.recorder import NOT_SENT, OK, WRONG_ANSWER, Outcome, Recorder
from inferd.bench.retries import Refusal, Retries
from inferd.bench.traffic import Prepared, RequestSampler

#: Sends a request, with a timeout in seconds, and calls `Attempt.sent` when it does; the result is its end.
Send = Callable[[Attempt, float], Awaitable[Answer | Failure]]

#: Returns how a response differs from the expected answer of its request; empty if it does not.
Check = Callable[[Prepared, bytes], str]

_NOT_SENT = Failure(Refusal(NOT_SENT[0]), NOT_SENT[1], "the deadline passed before the request could be sent")

#: An open loop holds requests back above this number in flight, so that memory suffices when answers stop.
MAX_IN_FLIGHT = 20_000


class _Begun(NamedTuple):
    """A request that was sent; without an ``end`` if its deadline had passed before. ``first`` is its first attempt."""

    intended_s: float
    first: Attempt
    end: Awaitable[Answer | Failure] | None


class Engine:
    """Runs one step of one worker; `run` returns when every request has ended."""

    def __init__(
        self,
        *,
        send: Send,
        check: Check,
        sampler: RequestSampler,
        retries: Retries,
        recorder: Recorder,
        random: np.random.Generator,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._send = send
        self._check = check
        self._sampler = sampler
        self._retries = retries
        self._recorder = recorder
        self._random = random
        self._room = asyncio.Semaphore(max_in_flight)

    async def run(self, load: Load) -> None:
        """Wait for the start of the step, send until its end, and wait for the answers."""
        self._clock = asyncio.get_running_loop().time
        await self._sleep_until(self._recorder.window.start_s)
        if isinstance(load, ClosedLoop):
            await asyncio.gather(*(self._keep_busy() for _ in range(load.concurrency)))
        else:
            await self._send_all(load.arrivals(self._random))

    async def _keep_busy(self) -> None:
        end_s = self._recorder.window.end_s
        while (now_s := self._clock()) < end_s:
            await self._end(self._begin(self._sampler.draw(), now_s))

    async def _send_all(self, arrivals: Iterator[Arrival]) -> None:
        window = self._recorder.window
        pending: set[asyncio.Task[None]] = set()
        pace = Pace(self._clock)
        for arrival in arrivals:
            due_s = window.start_s + arrival.at_s
            if due_s >= window.end_s:
                break
            await pace.wait(due_s)
            self._recorder.held_back += self._room.locked()
            await self._room.acquire()
            # Sent here, as the task would start one iteration of the event loop later.
            begun = self._begin(self._sampler.draw(arrival.rows), due_s)
            pace.begun(begun.first, due_s)
            task = asyncio.ensure_future(self._end_in_room(begun))
            pending.add(task)
            task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)

    async def _end_in_room(self, begun: _Begun) -> None:
        try:
            await self._end(begun)
        finally:
            self._room.release()

    def _begin(self, prepared: Prepared, intended_s: float) -> _Begun:
        """Send a request, unless its deadline has passed."""
        attempt = Attempt(prepared, self._clock())
        left_s = intended_s + prepared.timeout_s - attempt.sent_s
        begun = _Begun(intended_s, attempt, self._send(attempt, left_s) if left_s > 0 else None)
        self._recorder.begun()
        return begun

    async def _end(self, begun: _Begun) -> None:
        """Wait for the end of a request, and record it."""
        end = await self._end_of(begun)
        prepared = begun.first.prepared
        if isinstance(end, Failure):
            ended_s, status, message = self._clock(), end.status, end.message
        else:
            ended_s, status, message = end.arrived_s, OK, ""
            if prepared.expected is not None and (message := self._check(prepared, end.message)):
                status = WRONG_ANSWER
        self._recorder.ended(
            Outcome(
                class_index=prepared.class_index,
                rows=prepared.rows,
                intended_s=begun.intended_s,
                sent_s=begun.first.sent_s,
                ended_s=ended_s,
                status=status,
                message=message,
            )
        )

    async def _end_of(self, begun: _Begun) -> Answer | Failure:
        """Wait for the answer; retry as long as the deadline and the number of retries allow."""
        if begun.end is None:
            return _NOT_SENT
        prepared = begun.first.prepared
        deadline_s = begun.intended_s + prepared.timeout_s
        end = await begun.end
        attempts = 1
        while isinstance(end, Failure):
            delay_s = self._retries.delay_s(end.refusal, attempts, self._random)
            if delay_s is None or self._clock() + delay_s >= deadline_s:
                break
            self._recorder.retried(prepared.class_index, begun.intended_s, end.status)
            await asyncio.sleep(delay_s)
            now_s = self._clock()
            end = await self._send(Attempt(prepared, now_s), max(deadline_s - now_s, 0.0))
            attempts += 1
        return end

    async def _sleep_until(self, moment_s: float) -> None:
        await asyncio.sleep(max(0.0, moment_s - self._clock()))
