"""Interfaces of the parts that batching uses; tests implement them with fakes."""

from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from inferd.runtime.runners import RunStop
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
        """The number of parallel runs that take no longer than one alone."""
        ...

    @property
    def on_accelerator(self) -> bool:
        """True if runs happen on a device, so that the thread's processor time says nothing about the run time."""
        ...

    @property
    def runs_are_bounded(self) -> bool:
        """True if the run time depends on the number of rows only, and not on the values in them."""
        ...

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop) -> list[NDArray[np.generic]]:
        """Run the model once and return ``outputs`` in that order; fails soon after ``stop`` was triggered.

        Exceptions are logged, so their text must not quote values of ``inputs``.
        """
        ...

    def stop_batching(self, reason: str) -> bool:
        """Replace the signature by one without batch axes; False if the operator has set that the model batches."""
        ...

    @property
    def most_rows(self) -> int | None:
        """The most rows that there was memory for, as far as anything is known of it."""
        ...

    def remember_rows(self, rows: int) -> None:
        """Keep that there is memory for ``rows`` and not for more, beyond a restart too."""
        ...

    def try_out(self) -> bool:
        """Run one row on which the model is known to run, and free the memory that only larger runs needed.

        Returns False if there is no such row. Raises `RunFailedError`, and `RuntimeError` if the session is closed.
        """
        ...

    def reopen(self) -> None:
        """Open the model again, in place of the session that no longer runs. Raises `ModelLoadError`."""
        ...


class OneCoreSession(Protocol):
    """The session of a model for runs on one core each. Any thread may call."""

    @property
    def runs(self) -> int:
        """How many of them may go on at a time."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether runs are on one core; otherwise they are on all."""
        ...

    def open(self, most_rows: int) -> Sequence[tuple[int, float]]:
        """Open the session for up to ``most_rows``; return rows and seconds of its first runs.

        Nothing if it cannot be used. Raises `ModelLoadError` and `RunFailedError`.
        """
        ...

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop) -> list[NDArray[np.generic]]:
        """Run the model once, as `Session.run`."""
        ...


class Alarm(Protocol):
    """A timer thread on which no model runs."""

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...


def weak_callback(method: Callable[[], None]) -> Callable[[], None]:
    """Return a callback for an alarm that calls a bound ``method``, without keeping its object alive until then.

    Alarms may be due long after their model was unloaded.
    """
    reference = WeakMethod(method)

    def call() -> None:
        referenced = reference()
        if referenced is not None:
            referenced()

    return call


class PollThread(Protocol):
    """The rpc poll thread, from which requests and cancellations come. It must not be blocked."""

    @property
    def late_at(self) -> float:
        """When it last had more calls than it could look at, on the monotonic clock. Readable by any thread."""
        ...

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` before the next request is read. Callable from any thread."""
        ...

    def call_when_idle(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` when no request is ready to be read, or soon. Callable from the poll thread only."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once when the monotonic clock has reached ``when``. Callable from any thread."""
        ...
