"""Run batches in this process, on a session that is opened, verified and warmed up as by the server."""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from inferd import demo
from inferd.batch.bounded_threads import BoundedThreads
from inferd.batch.errors import INVALID_INPUT, RUN_FAILED, BatchError, RowsFailedError, UsageError
from inferd.batch.storage import is_remote
from inferd.config.settings import BatchingSettings, ModelSettings, Settings
from inferd.errors import InvalidInputError
from inferd.models.model_directory import RepositoryError
from inferd.models.model_source import ModelSource, model_file
from inferd.models.remote import RemoteRepositories
from inferd.models.repository import highest_version, resolve
from inferd.models.settings import read_model_settings
from inferd.periodic_thread import PeriodicThread
from inferd.runtime.decoder_graph import read_decoder
from inferd.runtime.errors import ModelLoadError, RunFailedError, RunFailure
from inferd.runtime.external_weights import find_weights
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.resources import usable_cores
from inferd.runtime.runners import RunStop
from inferd.runtime.session import OnnxSession, open_session
from inferd.runtime.signature import Array, ModelSignature, Tensors
from inferd.runtime.verdict_cache import cache_key
from inferd.runtime.warmup import largest_batch, warm_up
from inferd.runtime.warmup_samples import run_samples

#: The name of the built-in model, if no path has it.
_DEMO = "digits"

#: The most rows of all batches that run at a time, unless batching.max_batch_size is set.
_OFFLINE_ROWS = 2048

#: Settings without effect on answers.
_NOT_OF_ANSWERS: Mapping[str, bool | set[str]] = {
    **dict.fromkeys(("queue", "generation", "routing", "versions", "on_demand", "pinned", "warmup"), True),
    "runtime": {"verdict_cache", "shrink_after_s", "warmup"},
}

#: Seconds between two checks for runs above runtime.max_run_ms.
_TIMEOUT_PERIOD_S = 1.0

#: Batches that wait for a place, so that a run follows at once while earlier answers are processed.
_READY = 2

#: The most bytes of inputs of all concurrent runs together; each may have at least the second number.
_MOST_BYTES, _LEAST_BYTES = 64 * 2**20, 4 * 2**20


class LocalRunner:
    """Runs a model in threads of its own. Threads: one for `submit`; any may wait for futures."""

    def __init__(
        self, session: OnnxSession, *, max_rows: int, max_run_s: float, places: int, identity: Mapping[str, Any]
    ) -> None:
        self._session = session
        self._max_rows = max_rows
        self._max_run_s = max_run_s
        self._identity = identity
        self._threads = BoundedThreads(places, "inferd-batch-run", ready=_READY)
        self._lock = threading.Lock()
        #: The start time of each run in progress.
        self._running: dict[RunStop, float] = {}
        self._timeouts = PeriodicThread("inferd-batch-timeout", period_s=_TIMEOUT_PERIOD_S, action=self.stop_long_runs)
        self._busy_s = 0.0

    def start(self) -> None:
        """Start to check for runs that take too long."""
        self._timeouts.start()

    @property
    def signature(self) -> ModelSignature:
        """The inputs and outputs of the model."""
        return self._session.signature

    @property
    def max_rows(self) -> int:
        """The most rows of a batch by the settings; 1 if the model cannot be batched."""
        return self._max_rows

    @property
    def max_bytes(self) -> int:
        """The most bytes of inputs of one run."""
        return max(_MOST_BYTES // self.places, _LEAST_BYTES)

    @property
    def run_costs(self) -> Mapping[int, float]:
        """Empty: runs are measured on rows of the job."""
        return {}

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model's files, its settings, and what runs them."""
        return self._identity

    @property
    def places(self) -> int:
        """The most concurrent runs."""
        return self._threads.places

    @property
    def busy_s(self) -> float:
        """The seconds that runs took, summed over all places."""
        return self._busy_s

    def submit(self, inputs: Tensors, outputs: Sequence[str]) -> "Future[Mapping[str, Array]]":
        """Start a run; block while enough runs are queued."""
        return self._threads.submit(self._run, inputs, outputs)

    def close(self) -> None:
        """Stop all runs, and free the model."""
        with self._lock:
            for stop in self._running:
                stop.stop()
        self._threads.close()
        self._timeouts.stop()
        self._session.close()

    def stop_long_runs(self, now: float | None = None) -> None:
        """Stop the runs that take longer than runtime.max_run_ms. ``now`` is in monotonic seconds."""
        before = (time.monotonic() if now is None else now) - self._max_run_s
        with self._lock:
            for stop, started_at in self._running.items():
                if started_at < before:
                    stop.stop()

    def _run(self, inputs: Tensors, outputs: Sequence[str]) -> Mapping[str, Array]:
        try:
            # Checks what single columns cannot: dimensions that inputs share.
            self.signature.check(inputs)
        except InvalidInputError as error:
            raise RowsFailedError(INVALID_INPUT, str(error)) from None
        stop = RunStop()
        started_at = time.monotonic()
        with self._lock:
            self._running[stop] = started_at
        try:
            return dict(zip(outputs, self._session.run(inputs, outputs, stop), strict=True))
        except RunFailedError as error:
            raise self._failure(error, stop) from None
        finally:
            with self._lock:
                del self._running[stop]
                self._busy_s += time.monotonic() - started_at

    def _failure(self, error: RunFailedError, stop: RunStop) -> Exception:
        if error.failure is RunFailure.DEVICE:
            return BatchError(f"the model does not run any more: {error}")
        if stop.is_stopped:
            return RowsFailedError(RUN_FAILED, f"the run took longer than {self._max_run_s:g} s (runtime.max_run_ms)")
        return RowsFailedError(RUN_FAILED, f"the model failed: {error}")


def open_local(model: str, settings: Settings, *, in_flight: int | None = None) -> LocalRunner:
    """Load the model at the path or address ``model``, or the built-in one, as a server with ``settings`` would.

    Raises `UsageError` if there is no such model, and `BatchError` if it cannot be loaded.
    """
    source = _source(model, settings)
    try:
        own = read_model_settings(settings, source)
        path = model_file(source, own.file)
        # In the cache, as long as this is held.
        files = None if source.remote is None else source.remote.fetch(path, lambda: False)
        if read_decoder(path) is not None:
            raise UsageError(f"{source.place} is a language model, which generates text for requests: use inferd serve")
        session = open_session(path, _with_threads(own, in_flight), is_immutable=source.is_immutable)
        warm_up(session, own)
        run_samples(session, own, path)
        identity = _identity(source, path, own, session)
        del files
    except ModelLoadError as error:
        raise BatchError(f"{source.place} cannot be loaded: {error}") from error
    runner = LocalRunner(
        session,
        max_rows=_largest(own.batching, session),
        max_run_s=own.runtime.max_run_ms / 1000,
        # More runs than cores would slow each other down.
        places=in_flight or session.parallel_runs,
        identity=identity,
    )
    runner.start()
    return runner


def _with_threads(settings: ModelSettings, in_flight: int | None) -> ModelSettings:
    """Return the settings for throughput: unless intra_op_threads is set, each run has one thread, or a share of cores.

    The threads of one run wait for the slowest, which reading and writing delay: with one run for each core, a job of
    `mid` on 2 cores has 1.2 times the rows per second.
    """
    if settings.runtime.intra_op_threads:
        return settings
    threads = max(1, usable_cores() // in_flight) if in_flight else 1
    return settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"intra_op_threads": threads})})


def _source(model: str, settings: Settings) -> ModelSource:
    """Return the highest version of the model at a path or an address. Raises `UsageError`."""
    try:
        return highest_version(model, _sources(model, settings))
    except RepositoryError as error:
        raise UsageError(f"MODEL {error}") from error


def _sources(model: str, settings: Settings) -> list[ModelSource]:
    if is_remote(model):
        remote = RemoteRepositories(settings.remote, settings.repository.config_name)
        remote.start()
        return resolve([model], remote=remote.sources)
    path = Path(model)
    if path.exists():
        return resolve([path], config_name=settings.repository.config_name)
    if model == _DEMO:
        return resolve([demo.repository()])
    raise UsageError(f"MODEL {model}: there is no such file or directory; the built-in model is {_DEMO}")


def _largest(batching: BatchingSettings, session: OnnxSession) -> int:
    """Return the most rows of a batch: as set, or else more than the server's default, as latency does not matter."""
    largest = largest_batch(batching, batchable=session.signature.batchable)
    # Warm-up found no memory for larger batches.
    if session.most_rows is not None:
        return min(largest, session.most_rows)
    default: int = BatchingSettings.model_fields["max_batch_size"].default
    # A block of some thousand rows so has batches for all places.
    return max(default, _OFFLINE_ROWS // session.parallel_runs) if largest == default else largest


def _identity(source: ModelSource, path: Path, settings: ModelSettings, session: OnnxSession) -> dict[str, Any]:
    weights = find_weights(path, read_model_file(path).external_files)
    files = {path.name: path, **weights.files}
    return {
        "name": source.name,
        "version": source.version,
        "files": {name: cache_key([file], {}) for name, file in files.items()},
        "settings": settings.model_dump(mode="json", exclude=_NOT_OF_ANSWERS),
        "providers": list(session.providers),
    }
