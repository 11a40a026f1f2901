"""A loaded model: an ONNX Runtime session with its signature and the verdict on batching."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME, BYTES
from inferd.runtime.batch_axes.establish import establish_batch_axes, verdict_key
from inferd.runtime.batch_axes.inference import describe_axes_setting
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.batch_axes.verification import Verification
from inferd.runtime.bounded_runs import has_data_independent_work, has_fixed_size_rows
from inferd.runtime.errors import ModelLoadError, RunFailedError, SessionClosedError
from inferd.runtime.external_weights import ExternalWeights, find_weights
from inferd.runtime.kept_state import refuse_kept_state
from inferd.runtime.mapped_memory import mapped_memory
from inferd.runtime.model_folder import read_labels, settings_files
from inferd.runtime.one_core_session import MOST_BYTES, OneCoreSession, one_core_settings, useful_runs, weights_bytes
from inferd.runtime.onnx_file import read_model_file
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.providers import on_accelerator, on_cuda
from inferd.runtime.remembered_rows import RememberedRows
from inferd.runtime.replaceable_runner import ReplaceableRunner, run
from inferd.runtime.resources import BACKGROUND_NICE, low_priority_thread, parallel_runs, usable_cores
from inferd.runtime.runners import BoundRunner, DirectRunner, OrtObject, Runner, RunStop
from inferd.runtime.served_tensors import ServedTensors, served_tensors
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec
from inferd.runtime.verdict_cache import CacheFolder, VerdictCache, fingerprint, fingerprints

_log = logging.getLogger("inferd.runtime")


class OnnxSession:
    """Implements `inferd.batching.ports.Session`.

    Invariants: runs that start after `close`, or while `reopen` goes on, raise `SessionClosedError`. ``signature`` and
    ``verdict`` are replaced by `stop_batching` only, and only by ones that do not batch. ``open_runner`` opens the same
    file again.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        verification: Verification,
        providers: tuple[str, ...],
        parallel_runs: int,
        has_data_independent_work: bool,
        open_runner: Callable[[], Runner],
        remembered_rows: RememberedRows,
    ) -> None:
        self._runner = ReplaceableRunner(open_runner, runner)
        self._remembered_rows = remembered_rows
        self._has_data_independent_work = has_data_independent_work
        self._signature = verification.signature
        self._verdict = verification.verdict
        self._synthetic_inputs = verification.inputs
        self._providers = providers
        #: For runs on one core each; None if there are none.
        self.one_core: OneCoreSession | None = None
        self._parallel_runs = parallel_runs
        self._row_bytes = 0 if verification.inputs is None else _nbytes(verification.inputs.rows(1))
        self._has_run_more = verification.inputs is not None

    @property
    def signature(self) -> ModelSignature:
        """Inputs and outputs, with the batch axes in use."""
        return self._signature

    @property
    def verdict(self) -> Verdict:
        """Whether rows of several requests may share a batch, and why not."""
        return self._verdict

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use, the preferred one first."""
        return self._providers

    @property
    def parallel_runs(self) -> int:
        """Concurrent runs that do not slow each other down on otherwise idle cores."""
        return self._parallel_runs

    @property
    def on_accelerator(self) -> bool:
        """Whether runs wait for a device, so that thread CPU time does not measure them."""
        return on_accelerator(self._providers)

    @property
    def runs_are_bounded(self) -> bool:
        """Whether the duration of a run depends on the number of rows alone, not on their values."""
        return self._has_data_independent_work and has_fixed_size_rows(self._signature)

    @property
    def synthetic_inputs(self) -> SyntheticInputs | None:
        """Inputs on which the model is known to run; None if none were found."""
        return self._synthetic_inputs

    @property
    def most_rows(self) -> int | None:
        """The most rows that there was memory for, now or before the last restart; None if all there may be."""
        return self._remembered_rows.rows

    def remember_rows(self, rows: int) -> None:
        """Keep that there is memory for ``rows`` and not for more. Writes to a disk."""
        self._remembered_rows.remember(rows)

    @property
    def has_spare_memory(self) -> bool:
        """Whether runs since the last `shrink_memory` were larger than one row, so that it would free something."""
        return self._has_run_more or (self.one_core is not None and self.one_core.is_open)

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop | None = None) -> list[Array]:
        """Run the model once and return ``outputs`` in that order. Raises `RunFailedError`.

        ``stop`` can end the run from another thread; the run then fails.
        """
        runner = self._runner.current
        if runner is None:
            raise SessionClosedError
        if not self._has_run_more and self._synthetic_inputs is not None:
            self._has_run_more = _nbytes(inputs) > self._row_bytes
        return run(runner, inputs, outputs, stop)

    def stop_batching(self, reason: str) -> bool:
        """Revoke the verdict because of ``reason``; return False if the batch axes are configured and stay."""
        verdict = replace(self._verdict, standing=Standing.CONTRADICTED, reason=reason)
        if not verdict.configured:
            self._signature = self._signature.without_batch_axes()
            if self.one_core is not None:
                self.one_core.close()
        self._verdict = verdict
        return not verdict.configured

    def shrink_memory(self, inputs: Tensors) -> None:
        """Run once on a few rows of ``inputs`` and free the memory that larger runs needed. Raises as `run`."""
        # Before the run: one that begins meanwhile may leave memory.
        self._has_run_more = False
        if self.one_core is not None:
            self.one_core.release()
        runner = self._runner.current
        if runner is None:
            return
        try:
            runner.shrink(inputs, [spec.name for spec in self._signature.outputs])
        except Exception as error:  # noqa: BLE001  (as in `run`)
            raise RunFailedError(error).with_traceback(error.__traceback__) from None

    def try_out(self) -> bool:
        """Run one row on which the model is known to run, and free the memory that only larger runs needed.

        Returns False if there is no such row. Raises as `run`.
        """
        if self._synthetic_inputs is None:
            return False
        self.shrink_memory(self._synthetic_inputs.rows(1))
        return True

    def reopen(self) -> None:
        """Open the file again, in place of what does not run any more. Raises `ModelLoadError`."""
        # Both beside each other may not fit into memory.
        self._runner.release()
        if self.one_core is not None:
            self.one_core.release()
        with mapped_memory():
            self._runner.replace(self._runner.open_new())

    def close(self) -> None:
        """Release the model; its memory is freed when no run is in progress."""
        self._runner.close()
        if self.one_core is not None:
            self.one_core.close()


def _nbytes(inputs: Tensors) -> int:
    total = 0
    # Not a comprehension, which would be another call for each run.
    for array in inputs.values():
        total += array.nbytes
    return total


def open_session(
    path: Path,
    settings: ModelSettings,
    on_opened: Callable[[], None] = lambda: None,
    on_weights: Callable[[ExternalWeights], None] = lambda _: None,
    *,
    is_immutable: bool = False,
    pause: Callable[[], None] = lambda: None,
) -> OnnxSession:
    """Load the model file at ``path`` and establish its batch axes. Raises `ModelLoadError`.

    Calls ``on_weights`` before it opens the file, and ``on_opened`` before it verifies the axes; ``pause`` between the
    steps. ``is_immutable``: nobody changes its files while it is loaded.
    """
    file = read_model_file(path)
    refuse_kept_state(file)
    pause()
    weights = find_weights(path, file.external_files, are_immutable=is_immutable)
    on_weights(weights)
    before, states = fingerprints(path, weights.files), _states(path, weights)
    cache = VerdictCache(settings.runtime.verdict_cache)
    pause()
    with low_priority_thread("model-digest", BACKGROUND_NICE) as background:
        # Hashing a large file takes about as long as opening it, and both release the GIL. Requests go first.
        hashing = background.submit(verdict_key, path, settings, before) if cache.is_on else None
        session = open_runtime_session(path, settings, weights)
        pause()
        inputs, outputs = declared(session)
        used = tuple(session.get_providers())
        tensors = _served_tensors(path, inputs, outputs, settings)
        runner = tensors.runner(_runner(session, inputs, outputs, used))
        key = hashing.result() if hashing else ""
    if fingerprints(path, weights.files) != before:
        msg = f"{path.name} or a file with its weights was changed while it was loaded"
        raise ModelLoadError(msg)
    pause()
    on_opened()
    verification = establish_batch_axes(path, file, settings, tensors=tensors, runner=runner, cache=cache, key=key)
    _log_verdict(path, verification.verdict, settings)
    pause()
    options = session.get_session_options()
    threads = options.intra_op_num_threads * options.inter_op_num_threads
    served = OnnxSession(
        runner=runner,
        verification=verification,
        providers=used,
        parallel_runs=parallel_runs(
            threads=threads,
            on_accelerator=on_accelerator(used),
            cores=usable_cores(),
        ),
        # From the file itself, which is read whether or not the verdict is cached.
        has_data_independent_work=has_data_independent_work(file),
        remembered_rows=RememberedRows(CacheFolder(settings.runtime.verdict_cache), key),
        open_runner=partial(_open_again, path, settings, weights, states=states, tensors=tensors, used=used),
    )
    runs = useful_runs(settings, providers=used, threads=threads, cores=usable_cores())
    nbytes = weights_bytes(path, weights)
    if runs and nbytes <= MOST_BYTES and served.signature.batchable and served.synthetic_inputs is not None:
        own = one_core_settings(settings)
        served.one_core = OneCoreSession(
            runs=runs,
            open_runner=partial(_open_again, path, own, weights, states=states, tensors=tensors, used=used),
            run_on_all=served.run,
            inputs=served.synthetic_inputs,
            outputs=[spec.name for spec in served.signature.outputs],
            nbytes=nbytes,
        )
    return served


def _open_again(
    path: Path,
    settings: ModelSettings,
    weights: ExternalWeights,
    *,
    states: Mapping[str, str],
    tensors: ServedTensors,
    used: tuple[str, ...],
) -> Runner:
    """Open a file that is served for a second time. Raises `ModelLoadError` if that gives another model."""
    _require_unchanged(path, weights, states)
    session = open_runtime_session(path, settings, weights)
    # Also while it was opened, of which nobody knows when each part was read.
    _require_unchanged(path, weights, states)
    if tuple(session.get_providers()) != used:
        msg = f"{path.name} was opened with {', '.join(used)}, now only with {', '.join(session.get_providers())}"
        raise ModelLoadError(msg)
    inputs, outputs = declared(session)
    return tensors.runner(_runner(session, inputs, outputs, used))


def _served_tensors(
    path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], settings: ModelSettings
) -> ServedTensors:
    """Apply the settings of tensors. Raises `ModelLoadError` that names the files that may hold them."""
    try:
        return served_tensors(inputs, outputs, settings, read_labels(path, settings))
    except ModelLoadError as error:
        files = settings_files(path)
        msg = f"{files}: {error}" if files else str(error)
        raise ModelLoadError(msg) from error


def _runner(
    session: OrtObject, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], used: tuple[str, ...]
) -> Runner:
    datatypes = {spec.datatype for spec in (*inputs, *outputs)}
    if BYTES in datatypes and BY_NAME["BF16"] in datatypes:
        msg = "the model has both BYTES and BF16 tensors, which ONNX Runtime's Python interface cannot run together"
        raise ModelLoadError(msg)
    is_cuda = on_cuda(used)
    if BYTES in datatypes or not (is_cuda or BY_NAME["BF16"] in datatypes):
        return DirectRunner(session, inputs, outputs)
    device_id = int(session.get_provider_options()[used[0]].get("device_id", 0)) if is_cuda else 0
    return BoundRunner(session, inputs, device="cuda" if is_cuda else "cpu", device_id=device_id)


def _states(path: Path, weights: ExternalWeights) -> dict[str, str]:
    """Return the fingerprints, with the identity of each file: another one may have the same size and time."""
    found = {}
    for name, file in {"": path, **weights.files}.items():
        try:
            identity = file.stat()
        except OSError:
            found[name] = ""
        else:
            found[name] = f"{fingerprint(file)} {identity.st_dev} {identity.st_ino}"
    return found


def _require_unchanged(path: Path, weights: ExternalWeights, states: Mapping[str, str]) -> None:
    if _states(path, weights) != states:
        msg = f"{path.name} or a file with its weights is not the one any more that was loaded"
        raise ModelLoadError(msg)


def _log_verdict(path: Path, verdict: Verdict, settings: ModelSettings) -> None:
    """Log the verdict, once for each model that is loaded."""
    if verdict.standing is Standing.PROVEN:
        _log.info("%s is proven to batch", path.name)
    elif verdict.allows_batching and settings.batching.enabled:
        _log.warning(
            "%s is batched because %s, although the verdict is %s; if it is right, requests get other answers in a "
            "batch than alone, which batching.enabled: false avoids",
            path.name,
            _configured_by(path, settings),
            verdict,
        )
    elif verdict.allows_batching:
        _log.info("%s is not batched, as batching.enabled is false; the verdict would be %s", path.name, verdict)
    elif verdict.shape_mismatch:
        _log.info("%s is not batched: %s", path.name, verdict.reason)
    else:
        _log.warning("%s is not batched: %s", path.name, verdict)


def _configured_by(path: Path, settings: ModelSettings) -> str:
    """Return which setting says that the model batches, and the files of the model that may hold it."""
    said = describe_axes_setting(settings)
    files = settings_files(path)
    if files == "config.pbtxt":
        return f"{said}: max_batch_size in config.pbtxt is above 0"
    return f"{said} in {files}" if files else said
