"""Establish the batch axes of a model: take a verdict from the cache, or verify the inferred candidates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnxruntime

from inferd import recorded_requests
from inferd.config.settings import ModelSettings
from inferd.config.tensors import InputOverride
from inferd.recorded_requests import InputForm, RecordedRequestsError
from inferd.runtime.batch_axes.inference import Candidate, describe_axes_setting, has_configured_axes, infer_batch_axes
from inferd.runtime.batch_axes.input_search import Hints, Run, example_rows
from inferd.runtime.batch_axes.synthetic_inputs import SyntheticInputs
from inferd.runtime.batch_axes.verification import Verification, verify_batch_axes
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.model_folder import model_folder
from inferd.runtime.onnx_file import ModelFile
from inferd.runtime.row_analysis.analysis import GraphAnalysis, analyse
from inferd.runtime.run_timeout import TrialRunner
from inferd.runtime.runners import Runner
from inferd.runtime.served_tensors import ServedTensors
from inferd.runtime.signature import Array, ModelSignature, Tensors
from inferd.runtime.verdict_cache import CachedProof, VerdictCache, cache_key, fingerprint

#: Candidates to verify, the likeliest first.
_MOST_CANDIDATES = 3


def establish_batch_axes(
    path: Path,
    file: ModelFile,
    settings: ModelSettings,
    *,
    tensors: ServedTensors,
    runner: Runner,
    cache: VerdictCache,
    key: str,
) -> Verification:
    """Return the cached verification under ``key``, or verify and store it. An empty ``key`` bypasses the cache.

    ``runner`` takes and gives the shapes for clients, as ``tensors`` has them.

    Raises `ModelLoadError` for settings that contradict the model.
    """
    candidates = infer_batch_axes(tensors.inputs, tensors.outputs, settings)
    hints = _hints(path, settings, candidates[0].signature)
    cached = cache.load(key) if key else None
    known = None if cached is None else _restored(cached, candidates[0].signature, hints)
    if known is not None:
        return known
    with TrialRunner(runner, [spec.name for spec in tensors.outputs]) as trials:
        graphs = partial(_graph_analysis, file, tensors)
        verification = _verified(candidates[:_MOST_CANDIDATES], graphs, settings, hints, trials.run)
    if key:
        cache.store(key, _cacheable(verification))
    return verification


def verdict_key(path: Path, settings: ModelSettings, fingerprints: Mapping[str, str]) -> str:
    """Return the hash of everything that determines a verdict; empty if a file cannot be read.

    ``fingerprints`` are those of the external weights, by name; that of the model file, under "", is not used: its
    content is hashed.
    """
    runtime = settings.runtime
    facts = {
        "onnxruntime": onnxruntime.__version__,
        "weights": {name: found for name, found in fingerprints.items() if name},
        "libraries": {name: fingerprint(Path(name)) for name in runtime.custom_ops},
        "inputs": {name: each.model_dump() for name, each in settings.inputs.items()},
        "outputs": {name: each.model_dump() for name, each in settings.outputs.items()},
        "served_outputs": settings.served_outputs,
        "loose_dimensions": settings.loose_dimensions,
        "batch_axes": settings.batch_axes,
        "providers": runtime.providers,
        "provider_options": runtime.provider_options,
        "graph_optimization": runtime.graph_optimization,
        "session_options": runtime.session_options,
    }
    try:
        return cache_key([path, *_example_files(path)], facts)
    except (OSError, RecordedRequestsError):
        return ""


def _verified(
    candidates: Sequence[Candidate],
    analyse_graph: Callable[[ModelSignature], GraphAnalysis],
    settings: ModelSettings,
    hints: Hints,
    run: Run,
) -> Verification:
    """Return the verification of the first candidate that holds, or else that of the likeliest."""
    configured = has_configured_axes(settings)
    verifications = []
    for candidate in candidates:
        graph = analyse_graph(candidate.signature) if candidate.signature.batchable else None
        verification = verify_batch_axes(candidate, run, graph=graph, hints=hints, configured=configured)
        if verification.verdict.allows_batching:
            return verification
        if configured and verification.verdict.shape_mismatch:
            msg = f"{describe_axes_setting(settings)}, but {verification.verdict.reason}"
            raise ModelLoadError(msg)
        verifications.append(verification)
    return verifications[0]


def _graph_analysis(file: ModelFile, tensors: ServedTensors, signature: ModelSignature) -> GraphAnalysis:
    """Analyse the graph, whose shapes and axes are those of the file."""
    graph = analyse(file, tensors.in_file(signature))
    return replace(graph, axes=tensors.axes_for_clients(graph.axes))


def _hints(path: Path, settings: ModelSettings, signature: ModelSignature) -> Hints:
    """Return the user's hints: from the settings, and recorded requests beside the model."""
    forms = [
        InputForm(spec.name, spec.datatype, spec.shape, spec.batch_axis, spec.optional) for spec in signature.inputs
    ]
    shapes = {
        name: override.warmup_shape for name, override in settings.inputs.items() if override.warmup_shape is not None
    }
    try:
        recorded = [
            request
            for found in _example_files(path)
            for request in recorded_requests.read(found, forms, loose_dimensions=settings.loose_dimensions)
        ]
        configured = _configured_example(settings.inputs, forms)
    except RecordedRequestsError as error:
        raise ModelLoadError(str(error)) from error
    return Hints(shapes=shapes, examples=[*([configured] if configured else []), *recorded])


def _example_files(path: Path) -> Iterator[Path]:
    """Yield the recorded requests of the model's version, or else of the model."""
    for folder in dict.fromkeys((path.parent, model_folder(path))):
        found = recorded_requests.find(folder)
        if found is not None:
            yield found
            return


def _configured_example(overrides: Mapping[str, InputOverride], forms: Sequence[InputForm]) -> Tensors:
    example: dict[str, Array] = {}
    for form in forms:
        override = overrides.get(form.name)
        if override is not None and override.example is not None:
            try:
                example[form.name] = recorded_requests.from_json(form, override.example)
            except ValueError as error:
                msg = f"inputs.{form.name}.example: {error}"
                raise ModelLoadError(msg) from error
    return example


def _cacheable(verification: Verification) -> CachedProof:
    signature, inputs = verification.signature, verification.inputs
    return CachedProof(
        verdict=verification.verdict,
        axes={
            "inputs": {spec.name: spec.batch_axis for spec in signature.inputs},
            "outputs": {spec.name: spec.batch_axis for spec in signature.outputs},
        },
        ranks={spec.name: len(spec.shape) for spec in signature.outputs},
        shapes={} if inputs is None else inputs.shapes,
        bounds={} if inputs is None else inputs.bounds,
        numeric_texts=inputs is not None and inputs.numeric_texts,
    )


def _restored(cached: CachedProof, declared: ModelSignature, hints: Hints) -> Verification | None:
    """Return a cached verification, None if it does not fit the ``declared`` signature."""
    try:
        signature = replace(
            declared,
            inputs=tuple(replace(spec, batch_axis=cached.axes["inputs"][spec.name]) for spec in declared.inputs),
            outputs=tuple(
                replace(
                    spec,
                    batch_axis=cached.axes["outputs"][spec.name],
                    shape=spec.shape or (None,) * cached.ranks[spec.name],
                )
                for spec in declared.outputs
            ),
            batchable=cached.verdict.allows_batching,
        )
        inputs = _restored_inputs(cached, signature, hints)
    except (KeyError, ValueError):
        return None
    return Verification(signature=signature, verdict=cached.verdict, inputs=inputs)


def _restored_inputs(cached: CachedProof, signature: ModelSignature, hints: Hints) -> SyntheticInputs | None:
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
