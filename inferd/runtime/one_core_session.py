"""A second session of a model whose runs use one core each; opened when it is needed, released when it is not."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from inferd.config.settings import ModelSettings
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.external_weights import ExternalWeights
from inferd.runtime.mapped_memory import mapped_memory
from inferd.runtime.replaceable_runner import ReplaceableRunner, run
from inferd.runtime.resources import available_bytes, resident_bytes, usable_bytes
from inferd.runtime.runners import Runner, RunStop
from inferd.runtime.signature import Array, Tensors

_log = logging.getLogger("inferd.runtime")

#: With more cores, what the threads of a run lose on each other has not been measured.
_MOST_CORES = 4
#: Largest weights that are loaded a second time, and how many times their size must be free for that.
MOST_BYTES = 256 * 2**20
_FREE_TIMES = 4

_Run = Callable[[Tensors, Sequence[str], RunStop | None], list[Array]]


def one_core_settings(settings: ModelSettings) -> ModelSettings:
    """Return ``settings`` with one thread in a run."""
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"intra_op_threads": 1})})


def useful_runs(settings: ModelSettings, *, providers: Sequence[str], threads: int, cores: int) -> int:
    """Return how many runs on one core each a model may have at a time; 0 if it runs on all ``cores`` only.

    ``threads`` are those of a run of the session that serves.
    """
    is_automatic = settings.runtime.intra_op_threads == 0 and settings.batching.max_instances == 1
    is_possible = settings.batching.one_core_runs and is_automatic and tuple(providers) == ("CPUExecutionProvider",)
    return cores if is_possible and threads == cores and 1 < cores <= _MOST_CORES else 0


def weights_bytes(path: Path, weights: ExternalWeights) -> int:
    """Return the bytes of a model's files."""
    return sum(file.stat().st_size for file in (path, *weights.files.values()))


class OneCoreSession:
    """Implements `inferd.batching.ports.OneCoreSession`; any thread may call.

    ``run_on_all`` runs the session that serves otherwise: it takes over while this one is not open, and only if both
    have the same answers bit for bit is this one used. ``nbytes`` is the size of the weights.
    """

    def __init__(
        self,
        *,
        runs: int,
        open_runner: Callable[[], Runner],
        run_on_all: _Run,
        inputs: SyntheticInputs,
        outputs: Sequence[str],
        nbytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        #: How many runs may go on at a time.
        self.runs = runs
        self._runner = ReplaceableRunner(open_runner)
        self._run_on_all = run_on_all
        self._inputs = inputs
        self._outputs = list(outputs)
        self._nbytes = nbytes
        self._clock = clock

    @property
    def is_open(self) -> bool:
        """Whether runs are on one core."""
        return self._runner.current is not None

    def open(self, most_rows: int) -> list[tuple[int, float]]:
        """Open the session; return rows and seconds of its first runs, nothing if it cannot be used.

        Tries some numbers of rows up to ``most_rows``. Raises `ModelLoadError` and `RunFailedError`.
        """
        if self._runner.is_closed:
            return []
        if available_bytes(resident_bytes(), usable_bytes()) < _FREE_TIMES * self._nbytes:
            _log.info("a second session, with one thread a run, is not opened: too little memory is free")
            return []
        with mapped_memory():
            runner = self._runner.open_new()
        timed = self._try(runner, sorted({1, 2, 3, most_rows // 2 + 1, most_rows}))
        if timed:
            self._runner.replace(runner)
        return timed

    def _try(self, runner: Runner, sizes: Sequence[int]) -> list[tuple[int, float]]:
        timed = []
        for rows in sizes:
            inputs = self._inputs.rows(rows)
            started_at = self._clock()
            found = runner.run(inputs, self._outputs)
            timed.append((rows, self._clock() - started_at))
            expected = self._run_on_all(inputs, self._outputs, None)
            if not all(_are_identical(ours, theirs) for ours, theirs in zip(found, expected, strict=True)):
                _log.info("runs of %d rows on one core have other answers than on all, so they are not used", rows)
                return []
        return timed

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop | None = None) -> list[Array]:
        """Run on one core, or on all if the session is not open. As `OnnxSession.run`."""
        runner = self._runner.current
        return self._run_on_all(inputs, outputs, stop) if runner is None else run(runner, inputs, outputs, stop)

    def release(self) -> None:
        """Free the memory; it may be opened again."""
        self._runner.release()

    def close(self) -> None:
        """Free the memory for good."""
        self._runner.close()


def _are_identical(ours: Array, theirs: Array) -> bool:
    if ours.dtype.hasobject:
        return bool(np.array_equal(ours, theirs))
    return ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()
