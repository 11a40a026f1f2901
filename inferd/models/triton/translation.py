"""Translate a model configuration of Triton to the settings of a model.yaml."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.backends import require_onnx
from inferd.models.triton.batching import translate_batching, translate_warmup
from inferd.models.triton.draft import Draft, Translation
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.execution import translate_execution
from inferd.models.triton.fields import refuse_and_ignore
from inferd.models.triton.language_models import translate_language_model
from inferd.models.triton.origins import places_in
from inferd.models.triton.parameters import translate_parameters
from inferd.models.triton.parsing import parse_config, read_config_text
from inferd.models.triton.tensors import translate_tensors


def translate_file(path: Path, folder: Path, *, name: str, generates: bool = False) -> Translation:
    """Read the ``config.pbtxt`` at ``path``, and translate it. Raises `TritonConfigError` naming the file."""
    text = read_config_text(path)
    config = parse_config(path.name, text)
    try:
        return replace(translate(config, folder, name=name, generates=generates), places=places_in(text))
    except TritonConfigError as error:
        raise TritonConfigError(f"{path.name}: {error}") from error


def translate(config: pb.ModelConfig, folder: Path, *, name: str, generates: bool = False) -> Translation:
    """Return the settings of the model ``name`` in ``folder``, which is a language model if it ``generates``.

    Raises `TritonConfigError` naming each field that cannot be honoured, or the first one that is invalid.
    """
    draft = Draft()
    if generates:
        translate_language_model(config, draft)
    else:
        require_onnx(config)
        refuse_and_ignore(config, draft)
    _require_name(config, folder, name)
    if config.default_model_filename:
        draft.put(_file(config.default_model_filename), "file")
    draft.put(_versions(config.version_policy), "versions")
    if not generates:
        _translate_tensors(config, draft)
    if config.model_operations.op_library_filename:
        draft.put(list(config.model_operations.op_library_filename), "runtime", "custom_ops")
    return draft.finish()


def _translate_tensors(config: pb.ModelConfig, draft: Draft) -> None:
    """Translate the fields for models of tensors."""
    translate_tensors(config, draft)
    translate_batching(config, draft)
    translate_execution(config, draft)
    translate_parameters(config, draft)
    translate_warmup(config, draft)


def _require_name(config: pb.ModelConfig, folder: Path, name: str) -> None:
    # A model with a name from the command line may be in any directory, such as KServe's /mnt/models.
    if name == folder.name and config.name not in ("", name):
        raise TritonConfigError(f'name: expected "{folder.name}", the name of the directory, got "{config.name}"')


def _file(name: str) -> str:
    if PurePosixPath(name).name != name or name == "..":
        raise TritonConfigError(f'default_model_filename: expected a file name without directories, got "{name}"')
    return name


def _versions(policy: pb.ModelVersionPolicy) -> object:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return "all"
    if choice == "specific":
        versions = list(policy.specific.versions)
        if not versions or min(versions) < 0:
            raise TritonConfigError(f"version_policy.specific: expected numbers of versions, got {versions}")
        return versions
    if choice == "latest" and not policy.latest.num_versions:
        raise TritonConfigError("version_policy.latest: expected num_versions from 1, got 0")
    return {"latest": policy.latest.num_versions or 1}
