"""docs/models.md shows the output of `inferd inspect`."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor

import onnx.parser
import pytest

from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT

PAGE = (ROOT / "docs/models.md").read_text()

_SHOWN = re.compile(r"```text\n\$ (inferd inspect \w+)\n(.*?)```", re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]\d+)?")


@pytest.fixture
def repository(tmp_path):
    """The models of the page."""
    for name, model in (
        ("brightness", onnx_models.brightness()),
        ("words", onnx_models.split_words()),
        ("speech", onnx_models.needs_a_rate()),
    ):
        onnx_models.save(model, tmp_path / name / "1" / "model.onnx")
    return tmp_path


def _block(language, mark):
    """Return the block of ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in block]
    return found


def _run(command, folder):
    words = [str(BIN / "inferd"), *command.split()[1:]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _compared(text):
    """Omit what depends on the machine: the values of synthetic rows, and trailing blanks."""
    lines = [_NUMBER.sub("N", line) if line.startswith("verdict") else line for line in text.splitlines()]
    return [line.rstrip() for line in lines]


def test_inspect_output_of_page(repository):
    """Of each model, and of the last one again with the settings on the page."""
    shown = _SHOWN.findall(PAGE)
    assert [command.split()[-1] for command, _ in shown] == ["brightness", "words", "speech", "speech"]
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda each: _run(each[0], repository), shown[:3]))
    (repository / "speech/model.yaml").write_text(_block("yaml", "# speech/model.yaml"))
    told.append(_run(shown[3][0], repository))
    for (_, text), found in zip(shown, told, strict=True):
        assert _compared(found) == _compared(text)


def test_declarations_of_page(tmp_path):
    """The model is loaded with them; its clients see their shapes, and the samples run."""
    text = """<ir_version: 8, opset_import: ["" : 17]> images (float[N,784] pixels) => (float[N,10] scores) {
        first = Constant <value = int64[1] {0}> ()
        last = Constant <value = int64[1] {10}> ()
        axis = Constant <value = int64[1] {1}> ()
        scores = Slice (pixels, first, last, axis)
    }"""
    onnx_models.save(onnx.parser.parse_model(text), tmp_path / "images/1/model.onnx")
    (tmp_path / "images/digits.txt").write_text("\n".join("0123456789"))
    (tmp_path / "images/model.yaml").write_text(_block("yaml", "# images/model.yaml"))
    told = _run("inferd inspect images", tmp_path)
    assert re.search(r"input +pixels +FP32 +\[N, 28, 28\] +0", told)
    assert "Would be served with batching, up to 32 rows" in told
    without = _block("yaml", "# images/model.yaml").replace(", model_shape: [-1, 784]", "")
    (tmp_path / "images/model.yaml").write_text(without)
    (reason,) = re.findall(r"`(inputs\.pixels\.shape: [^`]*)`", PAGE)
    command = [str(BIN / "inferd"), "inspect", "images"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert f"model.yaml: {' '.join(reason.split())}" in done.stdout + done.stderr


def test_recorded_requests_of_page(repository):
    """They prove the model as its settings do."""
    (repository / "speech/examples.json").write_text(_block("json", "16000"))
    told = _run("inferd inspect speech", repository)
    assert "examples  speech/examples.json" in told
    assert "verdict   proven" in told
