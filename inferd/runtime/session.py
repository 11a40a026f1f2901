"""A model that is loaded: ONNX Runtime's session with a signature that has been put to the test."""

import logging
from collections.abc import Sequence
from pathlib import Path

from inferd.config.settings import ModelSettings
from inferd.dtypes import BY_NAME, BYTES
from inferd.runtime import providers
from inferd.runtime.cpus import parallel_runs, usable_cores
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.inspection import Inspection, has_given_axes, inspect
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.proof import MadeUpInputs, Proof, prove, unbatchable
from inferd.runtime.runners import BoundRunner, DirectRunner, OrtObject, Runner
from inferd.runtime.signature import ModelSignature, Tensors, TensorSpec
from inferd.runtime.values import Array

_log = logging.getLogger("inferd.runtime")


class OnnxSession:
    """Implements `inferd.batching.ports.Session`.

    Invariant: a run in progress holds the runtime's session itself, so that `close` in another thread never takes it
    away under the run; runs that begin after `close` raise `RuntimeError`.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        inspection: Inspection,
        made_up: MadeUpInputs | None,
        used: tuple[str, ...],
        parallel_runs: int,
    ) -> None:
        self._runner: Runner | None = runner
        self._inspection = inspection
        self._made_up = made_up
        self._providers = used
        self._parallel_runs = parallel_runs
        self._on_accelerator = providers.on_accelerator(used)

    @property
    def signature(self) -> ModelSignature:
        """What the model takes and gives."""
        return self._inspection.signature

    @property
    def why_not_batchable(self) -> str:
        """Why rows of several requests cannot run together, for the operator; empty if they can."""
        return self._inspection.why_not_batchable

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, the preferred one first."""
        return self._providers

    @property
    def parallel_runs(self) -> int:
        """How many runs at a time take no longer than one alone, if nothing else needs the cores."""
        return self._parallel_runs

    @property
    def on_accelerator(self) -> bool:
        """Whether a run waits for a device, so that its thread's processor time does not say how long it takes."""
        return self._on_accelerator

    @property
    def made_up(self) -> MadeUpInputs | None:
        """Inputs that the model is known to run on; None if none were found or none were tried."""
        return self._made_up

    def run(self, inputs: Tensors, outputs: Sequence[str]) -> list[Array]:
        """Run the model once and return ``outputs`` in that order, or raise `RunFailedError`."""
        runner = self._runner
        if runner is None:
            msg = "the session is closed"
            raise RuntimeError(msg)
        try:
            return runner.run(inputs, outputs)
        except Exception as error:  # noqa: BLE001  (whatever it is, its text must not get any further)
            # Without the error that it comes from, whose text would be logged as well; where it came from may be.
            raise RunFailedError(error).with_traceback(error.__traceback__) from None

    def close(self) -> None:
        """Let go of the model's memory as soon as no run is in progress."""
        self._runner = None


def open_session(path: Path, settings: ModelSettings) -> OnnxSession:
    """Load the model file at ``path``, find its batch axes and prove them. Raises `ModelLoadError`."""
    if not path.is_file():
        msg = f"there is no file {path.name}"
        raise ModelLoadError(msg)
    session = open_runtime_session(path, settings)
    inputs, outputs = declared(session)
    inspection = inspect(inputs, outputs, settings)
    used = tuple(session.get_providers())
    runner = _runner(session, inputs, outputs, used)
    made_up = None
    if settings.runtime.warmup:
        names = [spec.name for spec in outputs]
        proof = prove(
            inspection, lambda tensors: dict(zip(names, runner.run(tensors, names), strict=True)), settings.inputs
        )
        inspection, made_up = _judged(proof, settings), proof.made_up
    if inspection.why_not_batchable:
        _log.info("%s runs requests one by one: %s", path, inspection.why_not_batchable)
    options = session.get_session_options()
    return OnnxSession(
        runner=runner,
        inspection=inspection,
        made_up=made_up,
        used=used,
        parallel_runs=parallel_runs(
            threads=options.intra_op_num_threads * options.inter_op_num_threads,
            on_accelerator=providers.on_accelerator(used),
            cores=usable_cores(),
        ),
    )


def _runner(
    session: OrtObject, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], used: tuple[str, ...]
) -> Runner:
    datatypes = {spec.datatype for spec in (*inputs, *outputs)}
    if BYTES in datatypes and BY_NAME["BF16"] in datatypes:
        msg = "the model has both BYTES and BF16 tensors, which ONNX Runtime's Python interface cannot run together"
        raise ModelLoadError(msg)
    on_cuda = providers.on_cuda(used)
    if BYTES in datatypes or not (on_cuda or BY_NAME["BF16"] in datatypes):
        return DirectRunner(session, inputs, outputs)
    device_id = int(session.get_provider_options()[used[0]].get("device_id", 0)) if on_cuda else 0
    return BoundRunner(session, inputs, device="cuda" if on_cuda else "cpu", device_id=device_id)


def _judged(proof: Proof, settings: ModelSettings) -> Inspection:
    """Decide what the proof means for serving: the operator's word counts for more than a guess."""
    given = has_given_axes(settings)
    if proof.made_up is None:
        _log.warning(
            "the model does not run on made-up inputs, so its batch axes are taken as declared; "
            "set warmup_shape of its inputs to have them tried"
        )
    elif proof.contradiction and given:
        msg = f"batch_axis is set, but {proof.contradiction}"
        raise ModelLoadError(msg)
    elif proof.contradiction:
        _log.warning("the model is served without batching: %s", proof.contradiction)
    elif proof.influence and given:
        _log.warning("the model is batched because batch_axis is set, although %s", proof.influence)
    elif proof.influence:
        why = f"{proof.influence}; set batch_axis to batch it all the same"
        _log.warning("the model is served without batching: %s", why)
        return unbatchable(proof.inspection.signature, why)
    return proof.inspection
