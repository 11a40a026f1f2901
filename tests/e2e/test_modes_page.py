"""The commands of docs/models.md about models that come and go."""

import re
import shlex
import subprocess

from inferd import demo
from inferd.config.settings import Settings
from inferd.config.yaml_text import read_yaml
from tests import onnx_models
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving

_SECTION = (ROOT / "docs/models.md").read_text().partition("## Models that come and go")[2].partition("\n## ")[0]
_COMMANDS = [
    shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", _SECTION, re.DOTALL) for line in block.splitlines()
]


def _serve_commands():
    return [words[2:] for words in _COMMANDS if words[1] == "serve"]


def _call(server, words):
    command = [BIN / "inferd", *words[1:], "--address", server.grpc]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (0, ""), words
    return done.stdout


def _save(model, path):
    onnx_models.save(model, path / "model.onnx")


def test_models_by_calls(tmp_path):
    """Each command of the page works, in its order."""
    explicit, _ = _serve_commands()
    (tmp_path / "models/digits").mkdir(parents=True)
    (tmp_path / "models/digits/1").symlink_to(demo.repository() / "1")
    (tmp_path / "models/digits/2").symlink_to(demo.repository() / "1")
    _save(onnx_models.split_words(), tmp_path / "models/words/1")
    with serving(*explicit, folder=tmp_path) as server:
        index, load, unload, again = [words for words in _COMMANDS if words[1] == "models"]
        assert re.search(r"words +UNAVAILABLE", _call(server, index))
        assert "READY" in _call(server, load)
        assert _call(server, unload) == "unloaded digits version 1\n"
        states = re.findall(r"digits +(\d) +(\w+)", _call(server, index))
        assert states == [("2", "READY"), ("1", "UNAVAILABLE")]
        _call(server, again)
        assert re.findall(r"digits +(\d) +(\w+)", _call(server, index)) == [("2", "READY"), ("1", "READY")]


def test_named_model(tmp_path):
    """It is served beside those of a repository."""
    _, named = _serve_commands()
    (tmp_path / "models").mkdir()
    (tmp_path / "models/digits").symlink_to(demo.repository())
    _save(onnx_models.split_words(), tmp_path / "more-models/words/1")
    with serving(*named, folder=tmp_path) as server:
        assert server.events("ready")[0]["models"] == ["mnist", "words"]


def test_version_policy():
    """The example is a valid model.yaml."""
    _, content = read_yaml(re.findall(r"```yaml\n(.*?)```", _SECTION, re.DOTALL)[0])
    assert Settings().for_model(content).versions.latest == 2
