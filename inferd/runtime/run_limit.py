"""Ends trial runs that take far too long: some models loop as often as their inputs say, and any number is tried."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import onnxruntime

from inferd.runtime.row_comparison import Array
from inferd.runtime.runners import OrtObject, Runner
from inferd.runtime.signature import Tensors

#: How long the first run may take, and the others relative to the longest one so far that ended by itself.
_FIRST_S = 30.0
_TIMES_LONGER = 10.0
_LEAST_S = 1.0
_LOOK_EVERY_S = 0.05


class TrialTooLongError(Exception):
    """A run was ended because it took far longer than the others."""


class RunLimit:
    """Runs a model with an eye on the time while its context is open.

    ONNX Runtime ends a run between two of its operators, also in a loop. Only the thread that opened the context runs;
    the one that looks at the clock sees a run with its end, or none.
    """

    def __init__(self, runner: Runner, outputs: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._runner = runner
        self._outputs = outputs
        self._clock = clock
        self._longest_s: float | None = None
        self._current: tuple[OrtObject, float] | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="run-limit", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look at the clock."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread that looks at the clock."""
        self._closed.set()
        self._thread.join()

    @property
    def limit_s(self) -> float:
        """How long a run may take at present."""
        return _FIRST_S if self._longest_s is None else max(_LEAST_S, self._longest_s * _TIMES_LONGER)

    def run(self, inputs: Tensors) -> Mapping[str, Array]:
        """Return all outputs. Raises `TrialTooLongError`, and whatever the model raises."""
        options = onnxruntime.RunOptions()
        started_at = self._clock()
        self._current = (options, started_at + self.limit_s)
        try:
            arrays = self._runner.run(inputs, self._outputs, options)
        except Exception as error:
            if options.terminate:
                msg = f"a run was ended after {self.limit_s:g} s"
                raise TrialTooLongError(msg) from error
            raise
        finally:
            self._current = None
        self._longest_s = max(self._longest_s or 0.0, self._clock() - started_at)
        return dict(zip(self._outputs, arrays, strict=True))

    def _watch(self) -> None:
        while not self._closed.wait(_LOOK_EVERY_S):
            current = self._current
            if current is not None and self._clock() >= current[1]:
                current[0].terminate = True
