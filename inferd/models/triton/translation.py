"""Translate a model configuration of Triton to the settings of a model.yaml."""

from pathlib import Path, PurePosixPath

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.batching import translate_batching, translate_warmup
from inferd.models.triton.draft import Draft, Translation
from inferd.models.triton.errors import TritonConfigError
from inferd.models.triton.execution import translate_execution
from inferd.models.triton.fields import refuse_and_ignore
from inferd.models.triton.parameters import translate_parameters
from inferd.models.triton.tensors import translate_tensors

_PLATFORM = "onnxruntime_onnx"
_BACKEND = "onnxruntime"

#: What to do instead with a model of another backend or platform.
_INSTEAD = {
    "ensemble": "call the models one after another, or merge their ONNX files into one (onnx.compose)",
    "python": "do its work in the client, or as operators of the ONNX model (onnxruntime-extensions has tokenizers and "
    "image decoders)",
    "tensorrt": "serve the ONNX file that the plan was built from, with runtime.providers: [tensorrt, cuda, cpu]",
    "pytorch": "export it to ONNX (torch.onnx.export)",
    "tensorflow": "convert it to ONNX (tf2onnx)",
    "openvino": "serve the original ONNX file, with runtime.providers: [openvino, cpu]",
    "fil": "convert the trees to ONNX (skl2onnx, onnxmltools)",
    "dali": "do its work in the client, or as operators of the ONNX model",
    "vllm": "keep it on a server for generative models",
    "tensorrtllm": "keep it on a server for generative models",
}

#: Platforms and backends by the names above; others are shown as they are.
_ALIASES = {
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}

#: Files of other backends, which Triton chooses by them if no backend is given.
_OTHER_FILES = {".plan": "tensorrt", ".pt": "pytorch", ".pt2": "pytorch", ".savedmodel": "tensorflow",
                ".graphdef": "tensorflow", ".xml": "openvino", ".py": "python"}  # fmt: skip


def translate(config: pb.ModelConfig, folder: Path, *, name: str) -> Translation:
    """Return the settings of the model ``name`` in ``folder``.

    Raises `TritonConfigError` naming each field that cannot be honoured, or the first one that is invalid.
    """
    _require_onnx(config)
    draft = Draft()
    refuse_and_ignore(config, draft)
    _require_name(config, folder, name)
    if config.default_model_filename:
        draft.put(_file(config.default_model_filename), "file")
    draft.put(_versions(config.version_policy), "versions")
    translate_tensors(config, draft)
    translate_batching(config, draft)
    translate_execution(config, draft)
    translate_parameters(config, draft)
    translate_warmup(config, draft)
    if config.model_operations.op_library_filename:
        draft.put(list(config.model_operations.op_library_filename), "runtime", "custom_ops")
    return draft.finish()


def _require_onnx(config: pb.ModelConfig) -> None:
    for field, value, expected in (("platform", config.platform, _PLATFORM), ("backend", config.backend, _BACKEND)):
        if value not in ("", expected):
            kind = _ALIASES.get(value, value)
            instead = _INSTEAD.get(kind, f"expected {expected}")
            raise TritonConfigError(f'{field} "{value}": only ONNX models are served: {instead}')
    if not (config.platform or config.backend):
        kind = _OTHER_FILES.get(PurePosixPath(config.default_model_filename).suffix, "")
        if kind:
            file = config.default_model_filename
            raise TritonConfigError(f'default_model_filename "{file}": only ONNX models are served: {_INSTEAD[kind]}')


def _require_name(config: pb.ModelConfig, folder: Path, name: str) -> None:
    if config.name not in ("", name, folder.name):
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
