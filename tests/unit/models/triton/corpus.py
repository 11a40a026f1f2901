"""The configurations in tests/data/triton, each with the verdict that is expected of it."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inferd._generated.inference import model_config_pb2 as pb
from inferd.config.settings import Settings
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
        """Create the model's directory with empty files, and return it."""
        folder = repository / self.name
        folder.mkdir()
        shutil.copy(self.config, folder)
        for file in self.expected.get("files", ["1/model.onnx"]):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).touch()
        return folder


CASES = [Case(file.parent.name, yaml.safe_load(file.read_text())) for file in sorted(FOLDER.glob("*/verdict.yaml"))]
