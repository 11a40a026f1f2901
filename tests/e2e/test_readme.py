"""The examples of the README and of docs/other-clients.md, unchanged except for the port."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving

README = (ROOT / "README.md").read_text()
OTHER_CLIENTS = (ROOT / "docs/other-clients.md").read_text()
TRITON_PYTHON = ROOT / ".venv/tritonclient/bin/python"


@pytest.fixture(scope="module")
def server():
    """The built-in model."""
    with serving() as running:
        yield running


def _block(language, mark, page=README):
    """Return the block of code in ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL) if mark in block]
    return found


def _run(server, *command):
    over_http = server.events("ready")[0]["http"]
    places = (("127.0.0.1:8001", server.grpc), ("127.0.0.1:8000", over_http))
    for place, address in places:
        command = [str(part).replace(place, address) for part in command]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_grpcurl(server):
    """The first call of the README returns a three."""
    answer = _run(server, "bash", "-c", _block("sh", "grpcurl -plaintext"))
    assert re.search(r'"ints": \[\s+"3"\s+\]', answer)


def test_curl(server):
    """The same over HTTP."""
    answer = json.loads(_run(server, "bash", "-c", _block("sh", "curl http").replace("curl ", "curl --silent ")))
    assert {"name": "label", "datatype": "INT64", "shape": [1], "data": [3]} in answer["outputs"]


def test_python_client(server):
    """All ten digits, at once and one by one."""
    lines = _run(server, sys.executable, "-c", _block("python", "inferd.client")).splitlines()
    assert lines[0].startswith("[0 1 2 3 4 5 6 7 8 9]")
    assert sorted(lines[1:]) == [f"{digit} [{digit}]" for digit in range(10)]


def test_tritonclient(server):
    """Triton's client returns a three as well."""
    assert _run(server, TRITON_PYTHON, "-c", _block("python", "tritonclient", OTHER_CLIENTS)) == "[3]\n"


def test_shell_commands(server):
    """The commands in the README exist and work."""
    assert "digits" in _run(server, "inferd", "models", "--address", "127.0.0.1:8001")
    example = server.events("ready")[0]["try"][0]
    assert "3" in _run(server, "bash", "-c", example), "the call that the server itself proposes"
    assert "batching" in _run(server, "inferd", "inspect", ROOT / "inferd/demo/digits/1/model.onnx")
    assert "grpc_port" in _run(server, "inferd", "config")


def test_readme_is_short():
    """Details are in docs/."""
    assert len(README.split()) <= 700


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))],
    ids=lambda page: page.name,
)
def test_links_have_targets(page):
    """Files that the pages link to exist."""
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", page.read_text())]
    missing = [link for link in links if link and not link.startswith("http") and not (page.parent / link).exists()]
    assert missing == []
