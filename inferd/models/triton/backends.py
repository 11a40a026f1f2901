"""Refuse the models of other backends than ONNX Runtime, with a hint how to serve them."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from inferd._generated.inference import model_config_pb2 as pb
from inferd.models.triton.errors import TritonConfigError

_PLATFORM = "onnxruntime_onnx"
_BACKEND = "onnxruntime"

#: What to do instead with a model of another backend or platform.
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "ensemble": "call the models one after another, or merge their ONNX files into one (onnx.compose)",
        "python": "do its work in the client, or as operators of the ONNX model (onnxruntime-extensions has tokenizers "
        "and image decoders)",
        "tensorrt": "serve the ONNX file that the plan was built from, with runtime.providers: [tensorrt, cuda, cpu]",
        "pytorch": "export it to ONNX (torch.onnx.export)",
        "tensorflow": "convert it to ONNX (tf2onnx)",
        "openvino": "serve the original ONNX file, with runtime.providers: [openvino, cpu]",
        "fil": "convert the trees to ONNX (skl2onnx, onnxmltools)",
        "dali": "do its work in the client, or as operators of the ONNX model",
        "vllm": "convert it to ONNX with onnxruntime-genai's builder, which writes a genai_config.json",
        "tensorrtllm": "convert it to ONNX with onnxruntime-genai's builder, which writes a genai_config.json",
    }
)

#: Platforms and backends by the names above; others are named as they are.
_ALIASES = {
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
}

#: Backends by the suffix of the file, as Triton chooses one if the configuration names none.
_SUFFIXES = {
    ".plan": "tensorrt",
    ".pt": "pytorch",
    ".pt2": "pytorch",
    ".savedmodel": "tensorflow",
    ".graphdef": "tensorflow",
    ".xml": "openvino",
    ".py": "python",
}


def require_onnx(config: pb.ModelConfig) -> None:
    """Raise `TritonConfigError` for a configuration of another backend, saying what to do instead."""
    for field, value, expected in (("platform", config.platform, _PLATFORM), ("backend", config.backend, _BACKEND)):
        if value not in ("", expected):
            instead = INSTEAD.get(_ALIASES.get(value, value), f"expected {expected}")
            raise TritonConfigError(f'{field} "{value}": only ONNX models are served: {instead}')
    file = config.default_model_filename
    if not (config.platform or config.backend) and backend_of(file):
        instead = INSTEAD[backend_of(file)]
        raise TritonConfigError(f'default_model_filename "{file}": only ONNX models are served: {instead}')


def backend_of(file: str) -> str:
    """Return the backend, other than ONNX, of a file by its name; empty if there is none."""
    return _SUFFIXES.get(PurePosixPath(file).suffix, "")
