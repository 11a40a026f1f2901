"""A model that is loaded: ONNX Runtime's session, with a signature and a verdict on whether its rows may be batched."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import onnxruntime

from inferd import recorded_requests
from inferd.config.settings import ModelSettings, TensorOverride
from inferd.dtypes import BY_NAME, BYTES
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.runtime import providers
from inferd.runtime.batch_axes.inference import Inspection, has_configured_axes, inspect
from inferd.runtime.batch_axes.input_search import Hints, Run, example_rows
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verdict import Standing, Verdict
from inferd.runtime.batch_axes.verification import Proof, prove, unbatchable
from inferd.runtime.bounded_runs import has_data_independent_work, has_fixed_size_rows
from inferd.runtime.errors import ModelLoadError, RunFailedError
from inferd.runtime.external_weights import ExternalWeights, find_weights
from inferd.runtime.onnx_file import ModelFile, read_model_file
from inferd.runtime.opening import declared, open_runtime_session
from inferd.runtime.resources import parallel_runs, usable_cores
from inferd.runtime.row_analysis.analysis import analyse
from inferd.runtime.run_timeout import RunStop, TrialRunner
from inferd.runtime.runners import BoundRunner, DirectRunner, OrtObject, Runner
from inferd.runtime.signature import Array, ModelSignature, Tensors, TensorSpec
from inferd.runtime.verdict_cache import CachedProof, VerdictCache, cache_key, fingerprint

_log = logging.getLogger("inferd.runtime")

#: So many claims of where the rows are get tried, the likeliest first.
_MOST_CLAIMS = 3


class OnnxSession:
    """Implements `inferd.batching.ports.Session`.

    Invariants: a run in progress holds the runtime's session itself, so that `close` in another thread never takes it
    away under the run; runs that begin after `close` raise `RuntimeError`. ``signature`` and ``verdict`` are replaced
    by `stop_batching` only, and only by one that does not batch.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        proof: Proof,
        used: tuple[str, ...],
        parallel_runs: int,
        has_data_independent_work: bool,
    ) -> None:
        self._runner: Runner | None = runner
        self._has_steady_graph = has_data_independent_work
        self._signature = proof.inspection.signature
        self._verdict = proof.verdict
        self._trial = proof.trial
        self._providers = used
        self._parallel_runs = parallel_runs
        self._on_accelerator = providers.on_accelerator(used)

    @property
    def signature(self) -> ModelSignature:
        """What the model takes and gives."""
        return self._signature

    @property
    def verdict(self) -> Verdict:
        """Whether rows of several requests may run together, and why not."""
        return self._verdict

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
    def runs_are_bounded(self) -> bool:
        """Whether how long a run takes follows from its rows alone, whatever numbers are in them."""
        return self._has_steady_graph and has_fixed_size_rows(self._signature)

    @property
    def trial(self) -> SyntheticInputs | None:
        """Inputs that the model is known to run on; None if none were found."""
        return self._trial

    def run(self, inputs: Tensors, outputs: Sequence[str], stop: RunStop | None = None) -> list[Array]:
        """Run the model once and return ``outputs`` in that order, or raise `RunFailedError`.

        ``stop`` may end the run from another thread, which then fails.
        """
        runner = self._runner
        if runner is None:
            msg = "the session is closed"
            raise RuntimeError(msg)
        try:
            return runner.run(inputs, outputs, None if stop is None else stop.options)
        except Exception as error:  # noqa: BLE001  (whatever it is, its text must not get any further)
            # Without the error that it comes from, whose text would be logged as well; where it came from may be.
            raise RunFailedError(error).with_traceback(error.__traceback__) from None

    def stop_batching(self, reason: str) -> bool:
        """Take the verdict back because of ``reason``; False if the operator's word counts for more."""
        verdict = replace(self._verdict, standing=Standing.CONTRADICTED, reason=reason)
        if not verdict.given:
            self._signature = unbatchable(self._signature, reason).signature
        self._verdict = verdict
        return not verdict.given

    def give_back(self, inputs: Tensors) -> None:
        """Run once more on few ``inputs`` and free what larger ones needed. Raises as `run`."""
        if self._runner is None:
            return
        try:
            self._runner.shrink(inputs, [spec.name for spec in self._signature.outputs])
        except Exception as error:  # noqa: BLE001  (as in `run`)
            raise RunFailedError(error).with_traceback(error.__traceback__) from None

    def close(self) -> None:
        """Let go of the model's memory as soon as no run is in progress."""
        self._runner = None


def open_session(path: Path, settings: ModelSettings) -> OnnxSession:
    """Load the model file at ``path``, find its batch axes and prove them. Raises `ModelLoadError`."""
    file = read_model_file(path)
    weights = find_weights(path, file.external_files)
    before = _fingerprints(path, weights)
    cache = VerdictCache(settings.runtime.verdict_cache)
    with ThreadPoolExecutor(1, "model-digest") as background:
        # Of a large file the hash takes about as long as opening it, and both leave Python's lock alone.
        hashing = background.submit(_key, path, settings, before) if cache.is_on else None
        session = open_runtime_session(path, settings, weights)
        inputs, outputs = declared(session)
        used = tuple(session.get_providers())
        runner = _runner(session, inputs, outputs, used)
        key = hashing.result() if hashing else ""
    if _fingerprints(path, weights) != before:
        msg = f"{path.name} or a file with its weights was changed while it was loaded"
        raise ModelLoadError(msg)
    proof = _proof(path, file, settings, inputs, outputs, runner, cache, key)
    _tell(path, proof.verdict)
    options = session.get_session_options()
    return OnnxSession(
        runner=runner,
        proof=proof,
        used=used,
        parallel_runs=parallel_runs(
            threads=options.intra_op_num_threads * options.inter_op_num_threads,
            on_accelerator=providers.on_accelerator(used),
            cores=usable_cores(),
        ),
        # From the file itself, which is read whether or not the verdict is cached.
        has_data_independent_work=has_data_independent_work(file),
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


def _proof(
    path: Path,
    file: ModelFile,
    settings: ModelSettings,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    runner: Runner,
    cache: VerdictCache,
    key: str,
) -> Proof:
    """Return what is known of the model from the cache, or else prove it."""
    claims = inspect(inputs, outputs, settings)
    hints = _hints(path, settings, claims[0].signature)
    cached = cache.load(key) if key else None
    known = None if cached is None else _restored(cached, claims[0].signature, hints)
    if known is not None:
        return known
    with TrialRunner(runner, [spec.name for spec in outputs]) as limit:
        proof = _proof_of_claims(claims[:_MOST_CLAIMS], file, settings, hints, limit.run)
    if key:
        cache.store(key, _cacheable(proof))
    return proof


def _proof_of_claims(
    claims: Sequence[Inspection], file: ModelFile, settings: ModelSettings, hints: Hints, run: Run
) -> Proof:
    """Return the proof of the first claim that holds, or else what speaks against the likeliest."""
    given = has_configured_axes(settings)
    proofs = []
    for claim in claims:
        graph = analyse(file, claim.signature) if claim.signature.batchable else None
        proof = prove(claim, run, graph=graph, hints=hints, given=given)
        if proof.verdict.allows_batching:
            return proof
        if given and proof.verdict.misfit:
            msg = f"batch_axis is set, but {proof.verdict.reason}"
            raise ModelLoadError(msg)
        proofs.append(proof)
    return proofs[0]


def _hints(path: Path, settings: ModelSettings, signature: ModelSignature) -> Hints:
    """Return what the operator says of the inputs: in the settings, and by recorded requests beside the model."""
    forms = [
        InputForm(spec.name, spec.datatype, spec.shape, spec.batch_axis, spec.optional) for spec in signature.inputs
    ]
    shapes = {
        name: override.warmup_shape for name, override in settings.inputs.items() if override.warmup_shape is not None
    }
    try:
        examples = [
            request
            for found in _example_files(path)
            for request in recorded_requests.read(found, forms, loose_dimensions=settings.loose_dimensions)
        ]
        given = _given_examples(settings.inputs, forms)
    except RecordedRequestsError as error:
        raise ModelLoadError(str(error)) from error
    return Hints(shapes=shapes, examples=[*([given] if given else []), *examples])


def _example_files(path: Path) -> Iterator[Path]:
    """Yield the recorded requests of a model: those of its version, or else of all of its versions."""
    folders = [path.parent, path.parent.parent] if path.parent.name.isdecimal() else [path.parent]
    for folder in folders:
        found = recorded_requests.find(folder)
        if found is not None:
            yield found
            return


def _given_examples(overrides: Mapping[str, TensorOverride], forms: Sequence[InputForm]) -> Tensors:
    examples: dict[str, Array] = {}
    for form in forms:
        override = overrides.get(form.name)
        if override is not None and override.example is not None:
            try:
                examples[form.name] = recorded_requests.from_json(form, override.example)
            except ValueError as error:
                msg = f"inputs.{form.name}.example: {error}"
                raise ModelLoadError(msg) from error
    return examples


def _fingerprints(path: Path, weights: ExternalWeights) -> dict[str, str]:
    """Return what changes when somebody writes into the files that a session is made of."""
    return {name: fingerprint(file) for name, file in {"": path, **weights.files}.items()}


def _key(path: Path, settings: ModelSettings, files: Mapping[str, str]) -> str:
    """Return the hash of everything that a verdict follows from; empty if a file cannot be read."""
    runtime = settings.runtime
    facts = {
        "onnxruntime": onnxruntime.__version__,
        "weights": {name: found for name, found in files.items() if name},
        "libraries": {name: fingerprint(Path(name)) for name in runtime.custom_ops},
        "inputs": {name: each.model_dump() for name, each in settings.inputs.items()},
        "outputs": {name: each.model_dump() for name, each in settings.outputs.items()},
        "loose_dimensions": settings.loose_dimensions,
        "providers": runtime.providers,
        "provider_options": runtime.provider_options,
    }
    try:
        return cache_key([path, *_example_files(path)], facts)
    except (OSError, RecordedRequestsError):
        return ""


def _cacheable(proof: Proof) -> CachedProof:
    signature, trial = proof.inspection.signature, proof.trial
    return CachedProof(
        verdict=proof.verdict,
        axes={
            "inputs": {spec.name: spec.batch_axis for spec in signature.inputs},
            "outputs": {spec.name: spec.batch_axis for spec in signature.outputs},
        },
        ranks={spec.name: len(spec.shape) for spec in signature.outputs},
        shapes={} if trial is None else trial.shapes,
        bounds={} if trial is None else trial.bounds,
        numeric_texts=trial is not None and trial.numeric_texts,
    )


def _restored(cached: CachedProof, declared_as: ModelSignature, hints: Hints) -> Proof | None:
    """Return a cached proof as it was, None if it is not of this model after all."""
    try:
        signature = replace(
            declared_as,
            inputs=tuple(replace(spec, batch_axis=cached.axes["inputs"][spec.name]) for spec in declared_as.inputs),
            outputs=tuple(
                replace(
                    spec,
                    batch_axis=cached.axes["outputs"][spec.name],
                    shape=spec.shape or (None,) * cached.ranks[spec.name],
                )
                for spec in declared_as.outputs
            ),
            batchable=cached.verdict.allows_batching,
        )
        trial = _restored_trial(cached, signature, hints)
    except (KeyError, ValueError):
        return None
    return Proof(
        inspection=Inspection(signature=signature, why_not_batchable=cached.verdict.reason),
        verdict=cached.verdict,
        trial=trial,
    )


def _restored_trial(cached: CachedProof, signature: ModelSignature, hints: Hints) -> SyntheticInputs | None:
    if not cached.shapes:
        return None
    examples = example_rows(signature, hints.examples, cached.shapes)
    return SyntheticInputs(
        signature=signature,
        shapes={spec.name: cached.shapes[spec.name] for spec in signature.inputs},
        bounds=cached.bounds,
        numeric_texts=cached.numeric_texts,
        examples=examples,
    )


def _tell(path: Path, verdict: Verdict) -> None:
    """Write the verdict into the log, once for each model that is loaded."""
    if verdict.standing is Standing.PROVEN:
        _log.info("%s is proven to batch", path.name)
    elif verdict.allows_batching:
        _log.warning("%s is batched because batch_axis is set, although that is %s", path.name, verdict)
    elif verdict.misfit:
        _log.info("%s is not batched: %s", path.name, verdict.reason)
    else:
        _log.warning("%s is not batched, which is %s", path.name, verdict)
