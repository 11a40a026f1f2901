"""Fakes of batching's environment: time, timers, a model, an observer, and a caller."""

import heapq
import math
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from inferd import dtypes
from inferd.batching.queued import Principal
from inferd.batching.request import InferenceRequest, InferenceResult, Outcome, Reply
from inferd.errors import ServingError
from inferd.observability.metrics.models import BatchReport, ModelStats
from inferd.runtime.runners import RunStop
from inferd.runtime.signature import ModelSignature, Tensors, TensorSpec
from tests.patience import PATIENCE_S

Array = NDArray[np.generic]


class FakeClock:
    """A monotonic clock that advances only when told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ManualPollThread:
    """A poll thread whose timers fire when the test says so.

    It is always idle unless ``busy`` is set; then ``soon`` and ``when_idle`` collect its callbacks.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.busy = False
        self.soon: list[Callable[[], None]] = []
        self.when_idle: list[Callable[[], None]] = []
        self.late_at = -math.inf
        self._clock = clock
        self._order = count()
        self._armed: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def armed(self) -> list[float]:
        """The armed times, earliest first."""
        return sorted(when for when, _, _ in self._armed)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._armed, (when, next(self._order), callback))

    def call_soon(self, callback: Callable[[], None]) -> None:
        if self.busy:
            self.soon.append(callback)
        else:
            callback()

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        if self.busy:
            self.when_idle.append(callback)
        else:
            callback()

    def run_soon(self) -> None:
        """Call the collected callbacks, but none that they add."""
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()

    def fire_due(self) -> None:
        """Call back everything that the clock has reached."""
        while self._armed and self._armed[0][0] <= self._clock():
            heapq.heappop(self._armed)[2]()


class RecordingStats(ModelStats):
    """Counts, and keeps every event."""

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[int] = []
        self.rejections: list[str] = []
        self.caller_runs = 0
        self.reports: list[BatchReport] = []
        self.encoded_s: list[float] = []
        self.checks: list[bool] = []
        self.ended: list[str] = []

    def offered(self, rows: int) -> None:
        super().offered(rows)
        self.offers.append(rows)

    def failed(self, duration_s: float, overload_reason: str = "", *, by_model: bool = False) -> None:
        super().failed(duration_s, overload_reason, by_model=by_model)
        if overload_reason:
            self.rejections.append(overload_reason)

    def caller_ran(self) -> None:
        super().caller_ran()
        self.caller_runs += 1

    def batch_done(self, report: BatchReport) -> None:
        super().batch_done(report)
        self.reports.append(report)

    def run_ended(self, reason: str) -> None:
        super().run_ended(reason)
        self.ended.append(reason)

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        super().checked(run_s, mismatch=mismatch)
        self.checks.append(mismatch)

    def answered(self, encode_s: float) -> None:
        super().answered(encode_s)
        self.encoded_s.append(encode_s)


def tensor(name: str, shape: tuple[int | str | None, ...], batch_axis: int | None = 0) -> TensorSpec:
    """An FP32 input or output."""
    return TensorSpec(name=name, datatype=dtypes.BY_NAME["FP32"], shape=shape, batch_axis=batch_axis)


#: x, rows of any length, and a factor that a batch shares; y like x, the sum of each row, and the factor again.
SCALING = ModelSignature(
    inputs=(tensor("x", ("batch", "length")), tensor("factor", (), batch_axis=None)),
    outputs=(tensor("y", ("batch", "length")), tensor("sum", ("batch",)), tensor("same", (), batch_axis=None)),
    batchable=True,
)


def scale(inputs: Tensors) -> Mapping[str, Array]:
    """Return the outputs of the model with the signature `SCALING`."""
    y = np.multiply(inputs["x"], inputs["factor"])
    return {"y": y, "sum": np.sum(y, axis=1), "same": np.asarray(inputs["factor"])}


class FakeSession:
    """A model in numpy that records the rows and outputs of each run.

    ``compute`` may raise. While ``gate`` is not set, runs wait for it; ``entered`` counts the runs that have begun.
    """

    def __init__(
        self,
        compute: Callable[[Tensors], Mapping[str, Array]] = scale,
        *,
        signature: ModelSignature = SCALING,
        gate: threading.Event | None = None,
        on_accelerator: bool = False,
    ) -> None:
        self._signature = signature
        self.stopped_for: list[str] = []
        self.batch_axis_is_given = False
        self._on_accelerator = on_accelerator
        self._compute = compute
        self._gate = gate
        self.entered = threading.Semaphore(0)
        self.runs: list[int] = []
        self.stops: list[RunStop] = []
        self.runs_are_bounded = True
        #: What `try_out` and `reopen` raise, in turn; nothing when it is empty.
        self.trial_errors: list[Exception] = []
        self.reopen_errors: list[Exception] = []
        self.trials = self.reopenings = 0
        self.most_rows: int | None = None
        self.wanted: list[tuple[str, ...]] = []

    @property
    def signature(self) -> ModelSignature:
        return self._signature

    @property
    def parallel_runs(self) -> int:
        return 4

    @property
    def on_accelerator(self) -> bool:
        return self._on_accelerator

    def stop_batching(self, reason: str) -> bool:
        self.stopped_for.append(reason)
        if not self.batch_axis_is_given:
            self._signature = self._signature.without_batch_axes()
        return not self.batch_axis_is_given

    def remember_rows(self, rows: int) -> None:
        self.most_rows = rows

    def try_out(self) -> bool:
        self.trials += 1
        if self.trial_errors:
            raise self.trial_errors.pop(0)
        return True

    def reopen(self) -> None:
        self.reopenings += 1
        if self.reopen_errors:
            raise self.reopen_errors.pop(0)

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop) -> list[Array]:
        self.runs.append(len(inputs["x"]))
        self.stops.append(stop)
        self.wanted.append(tuple(outputs))
        self.entered.release()
        if self._gate is not None and not self._gate.wait(PATIENCE_S):
            raise TimeoutError("the test never opened the gate")
        computed = self._compute(inputs)
        return [computed[name] for name in outputs]


class Caller:
    """A caller with one request that waits for its outcome."""

    def __init__(
        self,
        *,
        x: Array | None = None,
        factor: float = 1.0,
        rows: int = 1,
        nbytes: int = 8,
        key: Hashable = (),
        outputs: tuple[str, ...] = ("y",),
        priority: int = 1,
        deadline: float = math.inf,
        principal: str = "",
        weight: float = 1.0,
        received_at: float = 100.0,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.releases = 0
        self._on_outcome = on_outcome
        self._answered = threading.Event()
        x = np.ones((rows, 2), dtype=np.float32) if x is None else x
        self.request = InferenceRequest(
            inputs={"x": x, "factor": np.asarray(factor, dtype=np.float32)},
            outputs=outputs,
            rows=len(x),
            nbytes=nbytes,
            stack_key=key,
            reply=Reply(self._answer, self._release),
            received_at=received_at,
            deadline=deadline,
            priority=priority,
            principal=Principal(principal, weight),
        )

    def _answer(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self._answered.set()
        self._on_outcome(outcome)

    def _release(self) -> None:
        self.releases += 1

    @property
    def released(self) -> bool:
        """Whether the request was released: the caller may send the next one."""
        return self.releases == 1

    @property
    def waits(self) -> bool:
        """Whether there is no outcome yet."""
        return not self.outcomes

    @property
    def outcome(self) -> Outcome:
        """The outcome, of which there is exactly one."""
        assert len(self.outcomes) == 1, f"expected one outcome, got {self.outcomes}"
        return self.outcomes[0]

    @property
    def result(self) -> InferenceResult:
        """The outcome, which is a result."""
        assert isinstance(self.outcome, InferenceResult), f"expected a result, got {self.outcome!r}"
        return self.outcome

    @property
    def error(self) -> ServingError:
        """The outcome, which is an error."""
        assert isinstance(self.outcome, ServingError), f"expected an error, got {self.outcome!r}"
        return self.outcome

    def wait(self) -> Outcome:
        """Wait for the outcome, for threads."""
        assert self._answered.wait(PATIENCE_S), "no outcome came"
        return self.outcome
