"""An executor on a fake model, a fake clock and a fake poll thread."""

import numpy as np

from inferd.batching.execution import Executor
from inferd.batching.failed_runs import FailedRuns
from inferd.batching.memory_limit import MemoryLimit
from inferd.batching.recovery import Recovery
from inferd.batching.request import Batch, ReplyDispatcher
from inferd.batching.run_guard import RunGuard
from inferd.batching.self_check import SelfCheck
from tests.fakes import FakeClock, FakeSession, ManualPollThread, RecordingStats, scale


class Model:
    """A fake model that runs batches and records the reports."""

    def __init__(self, compute=scale, chunk_rows=None, check_share=0.0, **session):
        self.stops: list[str] = []
        self.clock = FakeClock()
        self.thread_clock = FakeClock()
        self.session = FakeSession(compute, **session)
        self.stats = RecordingStats()
        self.poll_thread = ManualPollThread(self.clock)
        replies = ReplyDispatcher(clock=self.clock, stats=self.stats)
        self.alarm = ManualPollThread(self.clock)
        self.stuck: list[Batch] = []
        self.guard = RunGuard(
            name="m",
            session=self.session,
            limit_s=60.0,
            clock=self.clock,
            alarm=self.alarm,
            replies=replies,
            on_stuck=self.stuck.append,
        )
        self.limits: list[int] = []
        self.has_room = True
        #: How often idle models have memory to free, and how often they were asked.
        self.idle_have_memory = 0
        self.idle_asked = 0
        self.works: list[bool] = []
        self.threads: list = []
        self.no_thread = False
        #: When attempts to open the session again are due.
        self.attempts = ManualPollThread(self.clock)
        self.memory = MemoryLimit(
            name="m", most_rows=chunk_rows or 1, clock=self.clock, alarm=self.alarm, on_change=self._limit
        )
        self.recovery = Recovery(
            name="m",
            session=self.session,
            clock=self.clock,
            alarm=self.attempts,
            stats=self.stats,
            on_change=self.works.append,
            start_thread=self._start_thread,
            has_room=lambda: self.has_room,
        )
        self.failures = FailedRuns(
            name="m",
            session=self.session,
            replies=replies,
            memory=self.memory,
            recovery=self.recovery,
            in_pieces=chunk_rows is not None,
            on_mismatch=lambda: self.stops.append("batching"),
            free_idle=self._free_idle,
            has_room=lambda: self.has_room,
        )
        self.executor = Executor(
            name="m",
            session=self.session,
            guard=self.guard,
            chunk_rows=chunk_rows,
            clock=self.clock,
            replies=replies,
            poll_thread=self.poll_thread,
            check=SelfCheck(session=self.session, share=check_share, clock=self.clock),
            failures=self.failures,
            thread_clock=self.thread_clock,
        )

    def _free_idle(self):
        self.idle_asked += 1
        self.idle_have_memory -= 1
        return self.idle_have_memory >= 0

    def _start_thread(self, work, _):
        if self.no_thread:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        self.threads.append(work)

    def _limit(self, rows):
        self.limits.append(rows)
        self.executor.chunk_rows = rows

    def run(self, *callers):
        for caller in callers:
            caller.request.enqueued_at = 99.0
        rows = sum(caller.request.rows for caller in callers)
        batch = Batch(requests=[caller.request for caller in callers], rows=rows, started_at=self.clock())
        self.executor.execute(batch)
        return batch


def x(*values):
    return np.array([[value, value] for value in values], dtype=np.float32)


def poisoned(inputs):
    if (inputs["x"] < 0).any():
        raise RuntimeError("/models/secret.onnx: negative value")
    return scale(inputs)
