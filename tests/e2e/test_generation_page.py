"""The examples of docs/generation.md, unchanged except for ports, with a small random model; and its settings."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from inferd.config.settings import ModelSettings, Settings
from tests.decoder_models import write_tiny_decoder
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, serving

PAGE = (ROOT / "docs/generation.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model, under the name that the page uses."""
    made = tmp_path_factory.mktemp("page")
    write_tiny_decoder(made / "smollm2")
    return made


@pytest.fixture(scope="module")
def server(folder):
    """Serve it, as the page says."""
    command, *arguments = _block("sh", "scripts.build_smollm2").splitlines()[-1].split()[1:]
    assert command == "serve"
    with serving(*arguments, folder=folder) as running:
        yield running


@pytest.fixture
def run(server, folder):
    """Run a command in the folder, and return its output."""

    def run(*command):
        parts = [str(part) for part in command]
        parts = [part.replace("127.0.0.1:8000", server.rest).replace("127.0.0.1:8001", server.grpc) for part in parts]
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
        done = subprocess.run(
            parts, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    return run


def _block(language, mark):
    """Return the block of ``language`` that contains ``mark``."""
    (found,) = [block for block in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if mark in block]
    return found


def _events(text):
    """Return the contents of server-sent events."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("mark", ['smollm2 "What is the capital of France?"\n', "--system"])
def test_command_line(run, server, mark):
    """Each command of the page prints an answer, and the one with --json ends with the usage."""
    for line in _block("sh", mark).splitlines():
        # The address of the page's lines is the default.
        address = "" if "--address" in line else f" --address {server.grpc}"
        done = run("bash", "-ec", f"{line}{address}")
        assert done.stdout.strip()
        assert ("tokens in" in done.stderr) == ("--stats" in line)
        if "--json" in line:
            assert json.loads(done.stdout.splitlines()[-1])["usage"]["generated_tokens"]


def test_python_client(run):
    """A chat as it comes, and a whole text."""
    done = run(sys.executable, "-c", _block("python", "from inferd.client"))
    assert "GenerationUsage(prompt_tokens=" in done.stdout


def test_grpcurl(run):
    """The command finds the service by reflection; the last response has the usage."""
    done = run("bash", "-ec", _block("sh", "grpcurl"))
    assert '"finish_reason": "FINISH_REASON_' in done.stdout
    assert '"generated_tokens": ' in done.stdout


def test_openai_with_curl(run):
    """It prints the events of a chat, the last of which has the finish reason."""
    events = _events(run("bash", "-ec", _block("sh", "chat/completions")).stdout)
    assert "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert events[-1]["choices"][0]["finish_reason"] in {"stop", "length"}


def test_openai_client(run):
    """The script runs in an environment of its own."""
    assert run(ROOT / ".venv/openai/bin/python", "-c", _block("python", "from openai")).stdout


def test_triton_with_curl(run):
    """Events, and a whole answer in one line."""
    *lines, whole = run("bash", "-ec", _block("sh", "generate_stream")).stdout.splitlines()
    assert len([line for line in lines if line.startswith("data: ")]) > 1
    assert json.loads(whole)["text_output"]


def test_triton_client(run):
    """The script runs in an environment of its own."""
    assert run(ROOT / ".venv/tritonclient/bin/python", "-c", _block("python", "tritonclient")).stdout


def test_settings_are_valid():
    """The settings of the page are valid in the server's file and in a model's."""
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = yaml.safe_load(text)
    assert Settings.model_validate(settings).generation.max_sequences == 16
    assert ModelSettings.model_validate(settings).generation.cache_bytes == 2 << 30


def test_settings_exist():
    """All settings that the page names exist."""
    named = set(re.findall(r"`(?:generation\.)?(max_[a-z_]+|prefill_[a-z_]+|cache_bytes|default_[a-z_]+)`", PAGE))
    assert named - {"max_tokens"} <= set(Settings().generation.model_dump())
    assert "generation.max_sequences" in PAGE
