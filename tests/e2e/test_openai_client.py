"""OpenAI's Python client, unmodified and in its own environment, and curl."""

import json
import subprocess

import pytest

from tests.decoder_models import write_tiny_decoder
from tests.integration.security.conftest import token_entry
from tests.patience import PATIENCE_S
from tests.server import ROOT, serving

TOKEN = "inferd_user"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A tiny language model, for callers with a token."""
    folder = tmp_path_factory.mktemp("openai")
    write_tiny_decoder(folder / "models" / "tiny" / "1", end_ids=())
    (folder / "tokens.yaml").write_text(token_entry("user", TOKEN))
    with serving(folder / "models", f"--set=security.tokens_file={folder / 'tokens.yaml'}") as running:
        yield running


def _run(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_python_client(server):
    """Models, chats, completions, streams, errors, and many at once by asyncio; see the script."""
    script = ROOT / "tests/e2e/openai_client_script.py"
    done = _run(ROOT / ".venv/openai/bin/python", script, server.rest, TOKEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("held") == 7


@pytest.mark.parametrize("options", [(), ("--http1.0",), ("--compressed",)], ids=["plain", "HTTP/1.0", "compressed"])
def test_curl(server, options):
    """It prints each server-sent event as it comes."""
    request = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9, "stream": True}
    url = f"http://{server.rest}/v1/chat/completions"
    headers = ("-H", f"Authorization: Bearer {TOKEN}", "-H", "Content-Type: application/json")
    done = _run("curl", "-sSN", "--fail-with-body", *options, *headers, "-d", json.dumps(request), url)
    assert done.returncode == 0, done.stdout + done.stderr
    *events, end, last = done.stdout.split("\n\n")
    assert (end, last) == ("data: [DONE]", "")
    assert json.loads(events[-1].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
