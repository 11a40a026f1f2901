"""The configurations in tests/data/triton, each with the verdict that is expected of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import yaml

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.settings import Settings
from inferd.dtypes import ALL, BY_NAME
from inferd.models.triton import TritonConfigError, read_config
from tests.server import ROOT

FOLDER = ROOT / "tests/data/triton"


@dataclass(frozen=True)
class Case:
    """One model: its configuration, and ``verdict.yaml`` beside it.

    That has ``served``, ``reason`` (its beginning), ``settings``, ``ignored`` and ``differences`` (the beginnings);
    ``files`` that are in the model's directory (1/model.onnx by default), and ``server``, the server's own settings.
    """

    name: str
    expected: dict[str, Any]

    @property
    def config(self) -> Path:
        return FOLDER / self.name / "config.pbtxt"

    @property
    def settings(self) -> Settings:
        return Settings.model_validate(self.expected.get("server", {}))

    def message(self) -> pb.ModelConfig | None:
        """Return the parsed configuration, None for one that does not parse."""
        try:
            return read_config(self.config)
        except TritonConfigError:
            return None

    def create(self, repository: Path) -> Path:
        """Create the model's directory with empty files and ONNX files that fit the configuration, and return it."""
        folder = repository / self.name
        folder.mkdir()
        shutil.copy(self.config, folder)
        for file in self.expected.get("files", ["1/model.onnx"]):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
            if file.endswith(".onnx"):
                onnx.save(declared_model(self.message() or pb.ModelConfig()), folder / file)
        return folder


def declared_model(config: pb.ModelConfig) -> onnx.ModelProto:
    """Return a model that declares the tensors of ``config``, or x and y, and does nothing."""
    rows = ["rows"] if config.max_batch_size > 0 else []
    inputs = [_declared(each, rows) for each in config.input] or [_tensor("x", onnx.TensorProto.FLOAT, [*rows, 3])]
    outputs = [_declared(each, rows) for each in config.output] or [_tensor("y", onnx.TensorProto.FLOAT, [*rows, 3])]
    defaults = [onnx.TensorProto(name=each.name, data_type=1) for each in config.input if each.optional]
    graph = onnx.helper.make_graph([], "corpus", inputs, outputs, defaults)
    return onnx.helper.make_model(graph, ir_version=8)


def _declared(tensor: pb.ModelInput | pb.ModelOutput, rows: list[str]) -> onnx.ValueInfoProto:
    sizes = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
    datatype = next((each for each in ALL if each.triton_config == tensor.data_type), BY_NAME["FP32"])
    shape = [f"{tensor.name}_{axis}" if size < 0 else size for axis, size in enumerate(sizes)]
    return _tensor(tensor.name, datatype.onnx_element_type, [*rows, *shape])


def _tensor(name: str, element: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, element, shape)


CASES = [Case(file.parent.name, yaml.safe_load(file.read_text())) for file in sorted(FOLDER.glob("*/verdict.yaml"))]
