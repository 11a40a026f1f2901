"""The commands and the client's code in docs/from-triton.md, on a repository like the one that it describes."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from scripts.generate_triton_doc import render
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving

PAGE = (ROOT / "docs/from-triton.md").read_text()

_TENSORS = """
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
"""

CONFIGS = {
    "classifier": f"""
name: "classifier"
platform: "onnxruntime_onnx"
max_batch_size: 8 {_TENSORS}
instance_group [ {{ count: 2 kind: KIND_CPU }} ]
dynamic_batching {{ preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 2000 }}
optimization {{ input_pinned_memory {{ enable: true }} }}
""",
    "detector": f"""
name: "detector"
backend: "onnxruntime"
max_batch_size: 4 {_TENSORS}
instance_group [ {{ kind: KIND_GPU }} ]
""",
    "pipeline": 'platform: "ensemble"\nensemble_scheduling { step [ { model_name: "tokenizer" } ] }\n',
    "ranker": 'name: "ranker"\nplatform: "onnxruntime_onnx"\nmax_batch_size:\ninput [ { name: "x" } ]\n',
    "tokenizer": 'name: "tokenizer"\nbackend: "python"\n',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The directory with ``model_repository``."""
    folder = tmp_path_factory.mktemp("triton")
    for name, config in CONFIGS.items():
        version = folder / "model_repository" / name / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(config)
        if name in ("classifier", "detector", "ranker"):
            onnx_models.save(onnx_models.linear(), version / "model.onnx")
    (folder / "model_repository/tokenizer/1/model.py").touch()
    return folder


@pytest.fixture
def run(folder):
    """Run a command line of the page, and return its standard output."""

    def run(line, *, code=0):
        words = [str(BIN / "inferd"), *line.split()[1:]]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (done.returncode, done.stderr) == (code, "")
        return done.stdout

    return run


def _block(language, mark):
    """Return the block of ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in block]
    return found


def _words(text):
    return [line.split() for line in text.splitlines() if not line.startswith("─")]


def test_tables_of_page():
    """They are those of the code: `make docs` writes them."""
    assert render(PAGE) == PAGE


def test_verdicts_of_page(run):
    """The table on the page is what the command prints."""
    command, _, shown = _block("text", "$ inferd import-triton").partition("\n")
    assert _words(run(command.removeprefix("$ "), code=1)) == _words(shown)


def test_settings_of_page(run, folder):
    """The model.yaml on the page is what ``--write`` makes of the classifier."""
    command = _block("sh", "--write").strip()
    shutil.copytree(folder / "model_repository", folder / "copy")
    run(command.replace("model_repository", "copy"))
    written = (folder / "copy/classifier/model.yaml").read_text()
    assert yaml.safe_load(written) == yaml.safe_load(_block("yaml", "batch_axes: first"))


def test_client_of_page(folder):
    """Triton's client, unmodified, against the server that the page starts."""
    (command,) = _block("sh", "inferd serve").splitlines()
    with serving(*command.split()[2:], folder=folder) as server:
        code = _block("python", "tritonclient").replace("127.0.0.1:8001", server.grpc)
        python = ROOT / ".venv/tritonclient/bin/python"
        done = subprocess.run(
            [python, "-c", code], env={**os.environ}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["8", "(2, 3)"]
    states = yaml.safe_load(lines[2].replace("'", '"'))
    assert states["detector"] == "READY"
    assert states["classifier"] == "UNAVAILABLE"
    assert set(states) == set(CONFIGS)
