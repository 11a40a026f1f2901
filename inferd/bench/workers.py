"""Worker processes that send the load, each with an event loop of its own, undisturbed by display and report."""

import asyncio
import ctypes
import multiprocessing
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self, cast

import numpy as np

from inferd.arguments import Metadata
from inferd.bench import tensors
from inferd.bench.engine import Engine
from inferd.bench.loads import Load
from inferd.bench.recorder import Interval, Recorder, Window
from inferd.bench.retries import Retries
from inferd.bench.traffic import Prepared, RequestSampler, TrafficClass
from inferd.bench.transport import Transport
from inferd.endpoint import Endpoint

_CONNECT_TIMEOUT_S = 15.0
_PROGRESS_EVERY_S = 0.5
# From linux/prctl.h; the value is in nanoseconds, and holds for the thread.
_PR_SET_TIMERSLACK = 29
#: From sending a step to its start: longer than the message takes to arrive.
_START_DELAY_S = 0.2


class WorkerError(RuntimeError):
    """A worker process failed. The message has the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The job of a worker, for all steps. ``metadata`` is by traffic class."""

    endpoint: Endpoint
    classes: Sequence[TrafficClass]
    metadata: Sequence[Metadata]
    prepared: Mapping[tuple[int, int], Sequence[Prepared]]
    retries: Retries
    objective_s: float | None
    tolerance: float
    connections: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One load for one worker."""

    load: Load
    window: Window
    interval_s: float
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The requests that ended since the last message of a worker."""

    in_flight: int
    ended: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """The records of all workers. ``cpu_share`` is the share of one core that the busiest worker used."""

    recorder: Recorder
    cpu_share: float


class Workers:
    """A context manager with a fixed number of worker processes."""

    def __init__(self, job: Job, count: int) -> None:
        self._job = job
        self._count = count
        self._pipes: list[Connection] = []
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Self:
        # Not forked: gRPC's threads would not survive it.
        context = multiprocessing.get_context("spawn")
        for number in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, self._job, number), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        try:
            for pipe in self._pipes:
                self._receive(pipe)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self,
        load: Load,
        warmup_s: float,
        duration_s: float,
        interval_s: float,
        number: int,
        watch: Callable[[float, Window, Sequence[Progress]], None],
    ) -> StepResult:
        """Run one step. ``watch`` is called at least twice a second, with the time and the messages of workers."""
        start_s = time.monotonic() + _START_DELAY_S
        warm_s = start_s + warmup_s
        window = Window(start_s=start_s, warm_s=warm_s, end_s=warm_s + duration_s)
        for worker, pipe in enumerate(self._pipes):
            share = load.share(worker, self._count)
            pipe.send(Step(load=share, window=window, interval_s=interval_s, number=number))
        finished: dict[Connection, StepResult] = {}
        while waiting := [pipe for pipe in self._pipes if pipe not in finished]:
            # The stubs allow more than connections to be ready.
            ready = cast("list[Connection]", wait(waiting, _PROGRESS_EVERY_S / 2))
            received = {pipe: self._receive(pipe) for pipe in ready}
            watch(time.monotonic(), window, [each for each in received.values() if isinstance(each, Progress)])
            finished |= {pipe: each for pipe, each in received.items() if isinstance(each, StepResult)}
        first, *others = (result.recorder for result in finished.values())
        first.add(others)
        return StepResult(recorder=first, cpu_share=max(result.cpu_share for result in finished.values()))

    def _receive(self, pipe: Connection) -> object:
        try:
            message: object = pipe.recv()
        except EOFError:
            msg = "a worker process has ended; is the memory used up?"
            raise WorkerError(msg) from None
        if isinstance(message, str):
            raise WorkerError(message)
        return message

    def _end(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join()


def _work(pipe: Connection, job: Job, number: int) -> None:
    """Run steps until the pipe is closed: the main function of a worker process."""
    # Ctrl-C goes to the whole process group; the main process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _wake_on_time()
    # `select` waits to the microsecond where `epoll` rounds up to milliseconds, which would delay the sends.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    asyncio.set_event_loop(loop)
    transport = Transport(job.endpoint, job.metadata, job.connections)
    try:
        loop.run_until_complete(transport.open(_CONNECT_TIMEOUT_S))
        pipe.send(True)
        while True:
            step = pipe.recv()
            pipe.send(loop.run_until_complete(_run_step(pipe, job, number, step, transport)))
    except (EOFError, BrokenPipeError):
        pass
    except TimeoutError:
        pipe.send(f"{job.endpoint.address}: no connection within {_CONNECT_TIMEOUT_S:g} s")
    except Exception as error:  # noqa: BLE001  (the main process reports it)
        pipe.send(f"{type(error).__name__}: {error}")
    # Without closing gRPC channels, which may hang with the server.
    os._exit(0)


def _wake_on_time() -> None:
    """Set the timer slack to 1 ns: by default Linux may delay each wait by 50 µs."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)


async def _run_step(pipe: Connection, job: Job, number: int, step: Step, transport: Transport) -> StepResult:
    random = np.random.default_rng([job.seed, number, step.number])
    recorder = Recorder(
        window=step.window, classes=len(job.classes), objective_s=job.objective_s, interval_s=step.interval_s
    )

    def check(prepared: Prepared, message: bytes) -> str:
        assert prepared.expected is not None
        try:
            return tensors.difference(prepared.expected, tensors.answer(message), job.tolerance)
        except Exception as error:  # noqa: BLE001  (an answer that cannot be read is wrong)
            return f"cannot be read: {error}"

    engine = Engine(
        send=transport.send,
        check=check,
        sampler=RequestSampler(job.classes, job.prepared, random),
        retries=job.retries,
        recorder=recorder,
        random=random,
    )
    cpu = asyncio.ensure_future(_cpu_share(step.window))
    reports = asyncio.ensure_future(_report(pipe, recorder))
    try:
        await engine.run(step.load)
    finally:
        reports.cancel()
    return StepResult(recorder=recorder, cpu_share=await cpu)


async def _report(pipe: Connection, recorder: Recorder) -> None:
    """Send the requests that ended since the last message, every `_PROGRESS_EVERY_S`."""
    while True:
        await asyncio.sleep(_PROGRESS_EVERY_S)
        pipe.send(Progress(in_flight=recorder.in_flight, ended=recorder.take_recent()))


async def _cpu_share(window: Window) -> float:
    """Return the share of one core that this process used in the measured time."""
    clock = asyncio.get_running_loop().time
    await asyncio.sleep(max(0.0, window.warm_s - clock()))
    began_s, used_s = clock(), time.process_time()
    await asyncio.sleep(max(0.0, window.end_s - clock()))
    return (time.process_time() - used_s) / max(clock() - began_s, 1e-9)
