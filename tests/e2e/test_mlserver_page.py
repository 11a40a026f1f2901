"""The examples of docs/coming-from-mlserver.md work as they stand there."""

import re
import subprocess
import sys

import pytest
import yaml

from inferd.config.settings import Settings
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT

PAGE = (ROOT / "docs/coming-from-mlserver.md").read_text()


def _block(language, mark):
    """Return the block of ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in block]
    return found


def _run(*command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_converted_model(tmp_path):
    """It has the names of MLServer's runtime, is batched, and takes the settings beside it."""
    _run(sys.executable, "-c", _block("python", "skl2onnx"), folder=tmp_path)
    (tmp_path / "models/iris/model.yaml").write_text(_block("yaml", "max_wait_ms"))
    shown = _run(BIN / "inferd", "inspect", "models/iris", folder=tmp_path)
    for name in ("x", "predict", "predict_proba"):
        assert re.search(rf"put +{name} ", shown), shown
    assert "Would be served with batching, up to 256 rows" in shown


@pytest.mark.parametrize(("setting", "value"), [("mode", "explicit"), ("load", ["*"])])
def test_settings_of_a_server(setting, value):
    """They are valid, and load everything at start."""
    settings = Settings.model_validate(yaml.safe_load(_block("yaml", "models: [models]")))
    assert getattr(settings.repository, setting) == value
    assert (settings.server.http_port, settings.server.grpc_port) == (8080, 8081)
