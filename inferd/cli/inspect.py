"""``inferd inspect``."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from inferd.cli.config import server_settings
from inferd.cli.failures import CommandError
from inferd.cli.model_loading import ServedLanguageModel, ServedModel, find_model, load_model
from inferd.cli.output import print_json, print_table
from inferd.generation.text import ModelText
from inferd.models.model_source import ModelSource, model_file
from inferd.plain_text import escaped
from inferd.recorded_requests.arrays import shape_text
from inferd.runtime.batch_axes.inference import describe_axes_setting
from inferd.runtime.batch_axes.verdict import Standing
from inferd.runtime.errors import ModelLoadError
from inferd.runtime.onnx_file import ModelFile, read_model_file
from inferd.runtime.signature import TensorSpec

EXAMPLES = (
    "inferd inspect model.onnx",
    "inferd inspect repository/ranker --json",
    "inferd inspect model.onnx --set runtime.custom_ops=[onnxruntime-extensions]",
)

_MIB = 2**20
#: From here on, sizes in MiB are shown without a fraction.
_WHOLE_MIB = 10


def _existing(path: Path) -> Path:
    """Return ``path``, which must be one of this machine. Raises `typer.BadParameter`."""
    if path.exists():
        return path
    # The address may have a secret in it. A path has lost one of the two slashes.
    is_address = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(path)) is not None
    text = "expected a path, got an address, which only a server reads" if is_address else f"'{path}' does not exist"
    raise typer.BadParameter(text)


def inspect(
    *,
    path: Annotated[
        Path,
        typer.Argument(
            callback=_existing, help="An .onnx file, or the directory of a model or version.", show_default=False
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(help="Settings file of the server, in YAML.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting of the server, such as batching.enabled=false. Repeatable."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the contents of an ONNX file and how it would be served.

    Loads the model as a server would, with its model.yaml and its recorded requests (examples.json or examples.npz).
    Exits with 1 if a server would reject the model, or if these requests fail.
    """
    server = server_settings(config, settings or ())
    source = find_model(path)
    try:
        source = replace(source, path=model_file(source))
        file = read_model_file(source.path)
    except ModelLoadError as error:
        raise CommandError(str(error)) from None
    # Printed before loading, so that it is shown for rejected models too.
    if not as_json:
        _print_file(source, file)
    try:
        model = load_model(source, server)
    except ModelLoadError as error:
        raise CommandError(f"a server would reject it: {error}") from None
    if isinstance(model, ServedLanguageModel):
        _print_language_model(file, model, as_json=as_json)
        return
    if as_json:
        _print_json(file, model)
    else:
        _print_model(model)
    if model.failure:
        raise CommandError(model.failure)


def _print_file(source: ModelSource, file: ModelFile) -> None:
    opsets = ", ".join(f"{domain} {version}" for domain, version in file.opsets.items())
    _print_fact("file", f"{_shown(source.path)}, {source.path.stat().st_size / 1024:,.1f} KiB")
    _print_fact("format", f"ONNX IR {file.ir_version}, opset {opsets or 'none'}")
    _print_fact("producer", " ".join(filter(None, (file.producer_name, file.producer_version))) or "unknown")
    for settings in filter(None, (source.triton, source.config)):
        _print_fact("settings", _shown(settings))


def _print_model(model: ServedModel) -> None:
    session = model.session
    if model.examples:
        _print_fact("examples", _shown(model.examples))
    for warning in model.warnings:
        _print_fact("warning", warning)
    _print_fact("verdict", str(session.verdict))
    signature = session.signature
    rows = [_row("input", spec) for spec in signature.inputs] + [_row("output", spec) for spec in signature.outputs]
    print_table(["", "NAME", "TYPE", "SHAPE", "BATCH AXIS"], rows)
    for sentence in _sentences(model):
        print(sentence)


def _print_language_model(file: ModelFile, model: ServedLanguageModel, *, as_json: bool) -> None:
    verdict = model.opened.verdict
    if as_json:
        print_json(
            {
                **_file_json(file, model.source),
                "verdict": verdict.standing,
                "reason": verdict.reason,
                "generation": _generation_json(model),
                "providers": model.opened.decoder.providers,
                "warnings": model.warnings,
            }
        )
        return
    for warning in model.warnings:
        _print_fact("warning", warning)
    _print_fact("verdict", str(verdict))
    for sentence in _language_model_sentences(model):
        print(sentence)


def _sentences(model: ServedModel) -> Iterator[str]:
    """Yield how the model would be served."""
    session, batching = model.session, model.settings.batching
    if model.max_batch_size > 1:
        proven = session.verdict.standing is Standing.PROVEN
        why = "(batching.max_batch_size)" if proven else f"because {describe_axes_setting(model.settings)}"
        yield f"Would be served with batching, up to {model.max_batch_size} rows {why}."
    elif session.signature.batchable:
        why = "batching.enabled is false" if not batching.enabled else "batching.max_batch_size is 1"
        yield f"Would be served without batching, because {why}."
    else:
        yield "Would be served without batching: each request runs alone and in one piece."
    if session.synthetic_inputs is None and not model.failure:
        yield "It could not be run, so it is unknown whether requests would succeed."
    yield f"Would run on {', '.join(session.providers)}."


def _language_model_sentences(model: ServedLanguageModel) -> Iterator[str]:
    """Yield how a language model would be served."""
    opened, decoder, layers = model.opened, model.opened.decoder, len(model.form.caches) // 2
    sequences = f"{decoder.slots} sequences"
    yield (
        f"Is a language model of {layers} layers, with a context of {decoder.context_length} tokens and a vocabulary "
        f"of {decoder.vocabulary_size}."
    )
    yield (
        f"Would generate up to {sequences} at a time, with a cache of {_mib(opened.cache_bytes)}, "
        f"{_mib(1024 * decoder.cache_bytes_per_token)} for 1024 tokens."
    )
    yield f"Would take {_prompts(opened.text)}."
    if opened.seeds.steps:
        alone, full = (f"{1000 * seconds:.3g} ms" for _, seconds in (opened.seeds.steps[0], opened.seeds.steps[-1]))
        yield f"Took {alone} for a token of one sequence, and {full} for one of each of {sequences}."
    yield f"Would run on {', '.join(decoder.providers)}."


def _prompts(text: ModelText | None) -> str:
    if text is None:
        return "token ids only, as there is no tokenizer.json that can be read"
    return "text, chats or token ids" if text.has_chat_template else "text or token ids"


def _mib(nbytes: int) -> str:
    size = nbytes / _MIB
    return f"{size:,.0f} MiB" if size >= _WHOLE_MIB else f"{size:.2g} MiB"


def _row(kind: str, spec: TensorSpec) -> list[str]:
    axis = "" if spec.batch_axis is None else str(spec.batch_axis)
    optional = " (optional)" if spec.optional else ""
    return [kind, escaped(spec.name), spec.datatype.name, f"{shape_text(spec.shape)}{optional}", axis]


def _print_fact(name: str, text: str) -> None:
    print(f"{name:<9} {escaped(text)}")


def _shown(path: Path) -> str:
    """Return ``path`` relative to the working directory if it is below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _print_json(file: ModelFile, model: ServedModel) -> None:
    session = model.session
    print_json(
        {
            **_file_json(file, model.source),
            "examples": None if model.examples is None else str(model.examples),
            "inputs": [_tensor_json(spec) for spec in session.signature.inputs],
            "outputs": [_tensor_json(spec) for spec in session.signature.outputs],
            "verdict": session.verdict.standing,
            "reason": session.verdict.reason,
            "batchable": session.signature.batchable,
            "max_batch_size": model.max_batch_size,
            "tried": session.synthetic_inputs is not None,
            "providers": session.providers,
            "warnings": model.warnings,
        }
    )


def _file_json(file: ModelFile, source: ModelSource) -> dict[str, object]:
    return {
        "file": str(source.path),
        "bytes": source.path.stat().st_size,
        "settings": None if source.config is None else str(source.config),
        "triton_config": None if source.triton is None else str(source.triton),
        "ir_version": file.ir_version,
        "opsets": dict(file.opsets),
        "producer": file.producer_name,
        "producer_version": file.producer_version,
    }


def _tensor_json(spec: TensorSpec) -> dict[str, object]:
    return {
        "name": spec.name,
        "datatype": spec.datatype.name,
        "shape": spec.shape,
        "batch_axis": spec.batch_axis,
        "optional": spec.optional,
    }


def _generation_json(model: ServedLanguageModel) -> dict[str, object]:
    """Return what a server reports of a language model."""
    opened, text = model.opened, model.opened.text
    return {
        "context_length": opened.decoder.context_length,
        "vocabulary_size": opened.decoder.vocabulary_size,
        "max_sequences": opened.decoder.slots,
        "cache_bytes_per_token": opened.decoder.cache_bytes_per_token,
        "cache_bytes": opened.cache_bytes,
        "has_tokenizer": text is not None,
        "has_chat_template": text is not None and text.has_chat_template,
        "default_max_tokens": min(opened.settings.generation.default_max_tokens, opened.decoder.context_length),
        "end_token_ids": opened.decoder.defaults.end_token_ids,
    }
