"""Send the requests of one step, closed or open loop, on one event loop.

The clock is that of the event loop, so tests use virtual time. The transport is passed as `Send`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inferd.bench.loads import Arrival, ClosedLoop, Load
from inferd.bench.recorder import NOT_SENT, OK, WRONG_ANSWER, Outcome, Recorder, Status
from inferd.bench.retries import Refusal, Retries
from inferd.bench.traffic import Prepared, RequestSampler


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended with a status other than OK."""

    refusal: Refusal
    reason: str = ""
    message: str = ""

    @property
    def status(self) -> Status:
        """The status under which the attempt is counted."""
        return self.refusal.code, self.reason


#: Sends a request at once, with a timeout in seconds; the result is the serialized response or a failure.
Send = Callable[[Prepared, float], Awaitable[bytes | Failure]]

#: Returns how a response differs from the expected answer of its request; empty if it does not.
Check = Callable[[Prepared, bytes], str]

_NOT_SENT = Failure(Refusal(NOT_SENT[0]), NOT_SENT[1], "the deadline passed before the request could be sent")

#: An open loop holds requests back above this number in flight, so that memory suffices when answers stop.
MAX_IN_FLIGHT = 20_000


class _Begun(NamedTuple):
    """A request that was sent; without an ``attempt`` if its deadline had passed before."""

    prepared: Prepared
    intended_s: float
    sent_s: float
    attempt: Awaitable[bytes | Failure] | None


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
        for arrival in arrivals:
            due_s = window.start_s + arrival.at_s
            if due_s >= window.end_s:
                break
            # Also when late: the event loop so sends earlier requests.
            await self._sleep_until(due_s)
            self._recorder.held_back += self._room.locked()
            await self._room.acquire()
            # Sent here, as the task would start one iteration of the event loop later.
            begun = self._begin(self._sampler.draw(arrival.rows), due_s)
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
        now_s = self._clock()
        self._recorder.sent(intended_s, now_s)
        left_s = intended_s + prepared.timeout_s - now_s
        return _Begun(prepared, intended_s, now_s, self._send(prepared, left_s) if left_s > 0 else None)

    async def _end(self, begun: _Begun) -> None:
        """Wait for the end of a request, and record it."""
        answer = await self._answer(begun)
        ended_s = self._clock()
        prepared = begun.prepared
        if isinstance(answer, Failure):
            status, message = answer.status, answer.message
        elif prepared.expected is not None and (message := self._check(prepared, answer)):
            status = WRONG_ANSWER
        else:
            status, message = OK, ""
        self._recorder.ended(
            Outcome(
                class_index=prepared.class_index,
                rows=prepared.rows,
                intended_s=begun.intended_s,
                sent_s=begun.sent_s,
                ended_s=ended_s,
                status=status,
                message=message,
            )
        )

    async def _answer(self, begun: _Begun) -> bytes | Failure:
        """Wait for the answer; retry as long as the deadline and the number of retries allow."""
        if begun.attempt is None:
            return _NOT_SENT
        prepared = begun.prepared
        deadline_s = begun.intended_s + prepared.timeout_s
        answer = await begun.attempt
        attempts = 1
        while isinstance(answer, Failure):
            delay_s = self._retries.delay_s(answer.refusal, attempts, self._random)
            if delay_s is None or self._clock() + delay_s >= deadline_s:
                break
            self._recorder.retried(prepared.class_index, begun.intended_s, answer.status)
            await asyncio.sleep(delay_s)
            answer = await self._send(prepared, max(deadline_s - self._clock(), 0.0))
            attempts += 1
        return answer

    async def _sleep_until(self, moment_s: float) -> None:
        await asyncio.sleep(max(0.0, moment_s - self._clock()))
