"""What batching needs from outside, so that it can be tested without any of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inferd.runtime.run_stop import RunStop
from inferd.runtime.signature import ModelSignature, Tensors

#: Seconds on a clock that never goes back: ``time.monotonic``, a thread's own, or a fake one in tests.
Clock = Callable[[], float]


class Session(Protocol):
    """A loaded model. ``run`` may be called from several threads at once."""

    @property
    def signature(self) -> ModelSignature:
        """What the model takes and gives; the same object every time until `stop_batching` replaces it."""
        ...

    @property
    def parallel_runs(self) -> int:
        """How many runs at a time take no longer than one alone."""
        ...

    @property
    def on_accelerator(self) -> bool:
        """Whether a run waits for a device, so that its thread's processor time does not say how long it takes."""
        ...

    @property
    def runs_are_bounded(self) -> bool:
        """Whether how long a run takes follows from its rows alone, whatever numbers are in them."""
        ...

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop) -> list[NDArray[np.generic]]:
        """Run the model once and return ``outputs`` in that order; it may fail soon after ``stop`` told it to end.

        What it raises is logged, so its text must not quote the values of ``inputs``.
        """
        ...

    def stop_batching(self, reason: str) -> bool:
        """Have a signature without batch axes from now on; False if the operator has said that the model batches."""
        ...


class Alarm(Protocol):
    """Keeps times in a thread of its own, which no model runs on."""

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...


class PollThread(Protocol):
    """The thread that requests come from and cancels too, seen from here. It must not be blocked."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before any further request is taken in but the one at hand. Callable from any thread."""
        ...

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when no further request is ready to be taken in, or soon. From that thread only."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...


@dataclass(kw_only=True, slots=True)
class BatchReport:
    """One finished run of the model, successful or not. Durations in seconds.

    Not to be changed. (It is not frozen because frozen ones take several times as long to make.)

    ``decode_s`` and ``queue_s`` have one duration for each request that runs for the first time: none when the halves
    of a failed batch run again, or the further pieces of a request that is larger than a batch. Of a run itself that
    failed there is ``run_s`` only.
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
    """Is told what happens to a model's requests. Called from several threads; must not block.

    Each call but ``answered`` is made before the answers that it counts are given, so that whoever has an answer finds
    it counted.
    """

    def offered(self, rows: int) -> None:
        """Rows asked to be admitted, whatever came of it."""
        ...

    def refused(self, reason: str, rows: int) -> None:
        """Rows were refused or shed; ``reason`` is that of the `OverloadedError`."""
        ...

    def caller_ran(self) -> None:
        """A request ran outside the queue under the caller_runs policy."""
        ...

    def batch_done(self, report: BatchReport) -> None:
        """A run ended."""
        ...

    def run_ended(self, reason: str) -> None:
        """A run was ended before it came to its own end."""
        ...

    def checked(self, run_s: float, *, mismatch: bool) -> None:
        """A member of a batch ran again alone, for so long, and got another answer or the same."""
        ...

    def answered(self, encode_s: float) -> None:
        """The answers of a batch were encoded and handed over, so long after its run. The one call that comes later."""
        ...
