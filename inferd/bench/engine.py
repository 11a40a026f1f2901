"""Sends the requests of one step, closed or open loop, on one event loop.

The clock is the event loop's, so that tests run it on virtual time. The transport is given as `Send`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inferd.bench.loads import Arrival, ClosedLoop, Load
from inferd.bench.recorder import NOT_SENT, OK, WRONG_ANSWER, Outcome, Recorder, Status
from inferd.bench.retries import Refusal, Retries
from inferd.bench.traffic import Deck, Prepared


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that ended with another status than OK."""

    refusal: Refusal
    reason: str = ""
    message: str = ""

    @property
    def status(self) -> Status:
        """Return what the attempt is counted under."""
        return self.refusal.code, self.reason


#: Sends a request with a timeout in seconds, when it is called; gives the serialized response, or why there is none.
Send = Callable[[Prepared, float], Awaitable[bytes | Failure]]

#: Says how a response differs from the expected answer of its request, empty if it does not.
Check = Callable[[Prepared, bytes], str]

_NOT_SENT = Failure(Refusal(NOT_SENT[0]), NOT_SENT[1], "the deadline passed before the request could be sent")

#: Beyond these in flight an open loop holds requests back, so that it does not run out of memory when answers stop.
MAX_IN_FLIGHT = 20_000


class _Begun(NamedTuple):
    """A request that has been sent, or that came too late to be sent: then there is no ``attempt``."""

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
        deck: Deck,
        retries: Retries,
        recorder: Recorder,
        random: np.random.Generator,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self._send = send
        self._check = check
        self._deck = deck
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
            await self._end(self._begin(self._deck.draw(), now_s))

    async def _send_all(self, arrivals: Iterator[Arrival]) -> None:
        window = self._recorder.window
        pending: set[asyncio.Task[None]] = set()
        for arrival in arrivals:
            due_s = window.start_s + arrival.at_s
            if due_s >= window.end_s:
                break
            # Also when it is late, for the requests before it to be sent meanwhile.
            await self._sleep_until(due_s)
            self._recorder.held_back += self._room.locked()
            await self._room.acquire()
            # Here and not in the task, which would begin a turn of the loop later.
            begun = self._begin(self._deck.draw(arrival.rows), due_s)
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
        """Send a request, unless its time is over."""
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
        """Wait for the answer, and send the request again as long as its time and the retries allow."""
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
