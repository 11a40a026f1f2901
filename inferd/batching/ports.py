"""The interfaces that batching needs from outside; tests implement them with fakes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.runtime.run_timeout import RunStop
from inferd.runtime.signature import ModelSignature, Tensors

#: Seconds on a clock that never goes back: ``time.monotonic``, a thread's processor time, or a fake in tests.
Clock = Callable[[], float]


class Session(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def signature(self) -> ModelSignature:
        """The model's inputs and outputs; the same object every time until `stop_batching` replaces it."""
        ...

    @property
    def parallel_runs(self) -> int:
        """How many parallel runs take no longer than one alone."""
        ...

    @property
    def on_accelerator(self) -> bool:
        """Whether runs happen on a device, so that the thread's processor time says nothing about the run time."""
        ...

    @property
    def runs_are_bounded(self) -> bool:
        """Whether the run time depends on the number of rows only, and not on the values in them."""
        ...

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop) -> list[NDArray[np.generic]]:
        """Run the model once and return ``outputs`` in that order; fails soon after ``stop`` was triggered.

        Exceptions are logged, so their text must not quote values of ``inputs``.
        """
        ...

    def stop_batching(self, reason: str) -> bool:
        """Replace the signature by one without batch axes; False if the operator has set that the model batches."""
        ...


class Alarm(Protocol):
    """A timer thread on which no model runs."""

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...


class PollThread(Protocol):
    """The rpc poll thread, from which requests and cancellations come. It must not be blocked."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before the next request is read. Callable from any thread."""
        ...

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when no request is ready to be read, or soon. Callable from the poll thread only."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...


@dataclass(kw_only=True, slots=True)
class BatchReport:
    """One finished run of the model, successful or not. Durations in seconds.

    ``decode_s`` and ``queue_s`` have one duration for each request that runs for the first time: none when parts of a
    failed batch run again, or for the later pieces of a request that is larger than a batch. A failed run has only
    ``run_s``. Do not modify. (Not frozen, because creating a frozen dataclass takes several times as long.)
    """

    requests: int
    rows: int
    decode_s: Sequence[float]
    queue_s: Sequence[float]
    stack_s: float
    run_s: float
    split_s: float
    failed: bool


class Observer(Protocol):
    """Receives what happens to a model's requests. Called from several threads; must not block.

    All calls but ``answered`` are made before the counted requests are answered, so that a caller with an answer finds
    it counted.
    """

    def offered(self, rows: int) -> None:
        """Rows were offered, whether they are admitted or rejected."""
        ...

    def refused(self, reason: str, rows: int) -> None:
        """Rows were rejected or shed; ``reason`` is that of the `OverloadedError`."""
        ...

    def caller_ran(self) -> None:
        """A request ran outside the queue under the caller_runs policy."""
        ...

    def batch_done(self, report: BatchReport) -> None:
        """A run ended."""
        ...

    def run_ended(self, reason: str) -> None:
        """A run was ended early."""
        ...

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """One request of a batch ran again alone for ``run_s``, and its answer differed (``mismatch``) or not."""
        ...

    def answered(self, encode_s: float) -> None:
        """The answers of a batch were encoded and sent within ``encode_s`` after its run."""
        ...
