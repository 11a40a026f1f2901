"""Probes that call all the time, each in its own process and on its own connection, and record their answers."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.hostile.child import Child
from benchmarks.models import MODELS
from benchmarks.wires import open_inference_request
from inferd._generated.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub

_ASK_TIMEOUT_S = 5.0
#: Longer than a call's timeout, so it is reached only if the probe has ended.
_REPLY_TIMEOUT_S = 60.0
_FIRST_ANSWER_S = 10.0
_NOTED_LATE_S = 0.001
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]

Ask = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Observations of a probe in a span of time. ``last_answer`` is on the clock of `time.monotonic`.

    ``late_s``: the longest delay of its wake-ups, because no core was free.
    """

    silence_s: float
    late_s: float
    answers: int
    failures: dict[str, int]
    last_answer: float


class Watcher(Child):
    """A process that calls over and over, with ``pause_s`` between an answer and the next call."""

    def __init__(self, ask: Callable[[grpc.Channel], Ask], port: int, pause_s: float) -> None:
        super().__init__(_watch, ask, port, pause_s)

    def __enter__(self) -> Self:
        """Start calling, and return after the first answer."""
        super().__enter__()
        started = time.monotonic()
        while not self.seen_since(started).answers:
            if time.monotonic() > started + _FIRST_ANSWER_S:
                msg = "the server does not answer"
                raise RuntimeError(msg)
            time.sleep(0.05)
        return self

    def seen_since(self, since: float) -> Seen:
        """Return the observations since a moment of `time.monotonic`; earlier ones are discarded."""
        self.pipe.send(since)
        if not self.pipe.poll(_REPLY_TIMEOUT_S):
            msg = "a watcher has hung"
            raise RuntimeError(msg)
        seen: Seen = self.pipe.recv()
        return seen


def asks_health(channel: grpc.Channel) -> Ask:
    """Call the health service."""
    check = health_pb2_grpc.HealthStub(channel).Check
    return lambda: check(health_pb2.HealthCheckRequest(), timeout=_ASK_TIMEOUT_S)


def asks_model(channel: grpc.Channel) -> Ask:
    """Call the built-in model, as an ordinary caller does."""
    infer = GRPCInferenceServiceStub(channel).ModelInfer
    digits = MODELS["digits"]
    request = open_inference_request(digits, digits.rows()[0])
    return lambda: infer(request, timeout=_ASK_TIMEOUT_S)


def _watch(ask: Callable[[grpc.Channel], Ask], port: int, pause_s: float, pipe: Connection) -> None:
    """Call until the process is killed; a failure is no answer."""
    notes = _Notes()
    with grpc.insecure_channel(f"127.0.0.1:{port}", _OPTIONS) as channel:
        asked = ask(channel)
        while True:
            if pipe.poll():
                pipe.send(notes.since(pipe.recv()))
            try:
                asked()
            except grpc.RpcError as error:
                notes.failed.append((time.monotonic(), _status(error)))
            else:
                notes.answered.append(time.monotonic())
            awake = time.monotonic() + pause_s
            time.sleep(pause_s)
            if (late_s := time.monotonic() - awake) > _NOTED_LATE_S:
                notes.late.append((awake, late_s))


class _Notes:
    """Times of answers, failures and delays of this process."""

    def __init__(self) -> None:
        self.answered = [time.monotonic()]
        self.failed: list[tuple[float, str]] = []
        self.late: list[tuple[float, float]] = []

    def since(self, moment: float) -> Seen:
        """Return the observations since ``moment``, with the silence that had begun before; discard the rest."""
        del self.answered[: max(0, bisect_left(self.answered, moment) - 1)]
        self.failed = [failure for failure in self.failed if failure[0] >= moment]
        self.late = [late for late in self.late if late[0] >= moment]
        moments = [*self.answered, time.monotonic()]
        return Seen(
            silence_s=max(after - before for before, after in pairwise(moments) if after >= moment),
            late_s=max((late_s for _, late_s in self.late), default=0.0),
            answers=sum(answered >= moment for answered in self.answered),
            failures=dict(Counter(status for _, status in self.failed)),
            last_answer=self.answered[-1],
        )


def _status(error: grpc.RpcError) -> str:
    code: grpc.StatusCode = error.code()
    return code.name
