"""TLS and authentication as in docs/security.md and in the messages at startup."""

import http.client
import os
import re
import shlex
import ssl
import subprocess
from pathlib import Path

import pytest

from tests.certificates import DAY, HOUR, LOCAL_NAMES, Authority, Pair
from tests.patience import PATIENCE_S
from tests.server import BIN, ROOT, ServerProcess, serving

SECTION = (ROOT / "docs/security.md").read_text().partition("## Quick start")[2].partition("\n## ")[0]
START, WITH_TOKEN, WITH_CERTIFICATE = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, authority) -> Path:
    """The files of the page."""
    folder = tmp_path_factory.mktemp("securely")
    authority.save(folder)
    authority.issue(*LOCAL_NAMES).save(folder)
    authority.issue("spiffe://example/me").save(folder, "me")
    return folder


def run(folder: Path, script: str, server: ServerProcess | None = None) -> subprocess.CompletedProcess[str]:
    if server is not None:
        script = script.replace("127.0.0.1:8001", server.grpc).replace("models ", f"models --address {server.grpc} ")
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = ["bash", "-euc", script]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def succeed(folder: Path, script: str, server: ServerProcess) -> str:
    done = run(folder, script, server)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def server(folder):
    """Started with the command of the page, but on loopback."""
    new_token, _, serve = START.replace("\\\n", "").partition("\n")
    assert run(folder, new_token).returncode == 0
    arguments = shlex.split(serve.replace("--host 0.0.0.0", ""))
    assert arguments[:2] == ["inferd", "serve"]
    with serving(*arguments[2:], folder=folder) as running:
        yield running


@pytest.fixture(scope="module")
def mutual_server(folder):
    """With client certificates."""
    settings = ("cert_file=server.pem", "key_file=server.key", "client_ca_file=ca.pem", "client_certificates=required")
    with serving(*(part for each in settings for part in ("--set", f"security.tls.{each}")), folder=folder) as running:
        yield running


def test_commands_with_token(folder, server):
    """Each of the two commands lists the built-in model."""
    answers = succeed(folder, WITH_TOKEN, server)
    assert answers.count("digits") == 2


def test_commands_without_token(folder, server):
    """Both show the reason."""
    for command in WITH_TOKEN.strip().splitlines():
        stripped = command.replace('-H "authorization: Bearer $(cat alice.token)"', "").replace(
            "--token-file alice.token", ""
        )
        done = run(folder, stripped, server)
        assert done.returncode != 0
        assert "authorization" in done.stderr.lower()


def test_commands_with_certificate(folder, mutual_server):
    """Each of the two commands lists the built-in model."""
    answers = succeed(folder, WITH_CERTIFICATE, mutual_server)
    assert answers.count("digits") == 2


def test_commands_without_certificate(folder, mutual_server):
    """They cannot connect."""
    for command in WITH_CERTIFICATE.strip().splitlines():
        # Each would retry until its timeout.
        timeout = "--timeout 1" if "models" in command else "-connect-timeout 1"
        stripped = re.sub(r"-cert \S+ -key \S+|--certificate \S+ --key \S+", timeout, command)
        assert stripped != command
        assert run(folder, stripped, mutual_server).returncode != 0


def over_https(server: ServerProcess, command: str) -> str:
    """Return ``command`` with the address of HTTP and the CA."""
    return f"inferd {command} --address https://{server.events('ready')[0]['http']} --ca ca.pem"


@pytest.mark.parametrize("command", ["models", f"infer digits --input X=@{ROOT}/inferd/demo/digit.json"])
def test_commands_over_https(folder, server, mutual_server, command):
    """With the token or the certificate; without them, and without the CA, they end with the reason."""
    assert "digits" in succeed(folder, f"{over_https(server, command)} --token-file alice.token", server)
    refused = run(folder, over_https(server, command))
    assert (refused.returncode, "UNAUTHENTICATED" in refused.stderr) == (1, True)
    own = "--certificate me.pem --key me.key"
    assert "digits" in succeed(folder, f"{over_https(mutual_server, command)} {own}", mutual_server)
    assert run(folder, over_https(mutual_server, command)).returncode == 1
    unknown = run(folder, f"{over_https(server, command).replace('--ca ca.pem', '')} --token-file alice.token")
    assert "certificate verify failed" in unknown.stderr


def get(folder: Path, server: ServerProcess, path: str, *own: str) -> tuple[int, str]:
    """Get ``path`` over HTTPS, with or without a client certificate."""
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    if own:
        context.load_cert_chain(*(folder / name for name in own))
    connection = http.client.HTTPSConnection(server.http, timeout=PATIENCE_S, context=context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_metrics_need_certificate_but_probes_do_not(folder, mutual_server):
    """As the page says."""
    assert get(folder, mutual_server, "/readyz") == (200, "ok\n")
    assert get(folder, mutual_server, "/metrics") == (403, "expected a client certificate\n")
    status, metrics = get(folder, mutual_server, "/metrics", "me.pem", "me.key")
    assert status == 200
    assert re.search(r'^inferd_certificate_expiry_timestamp_seconds{file="client_ca"} \d', metrics, re.MULTILINE)


def test_example_commands_of_log(folder, server, mutual_server):
    """They work, once the caller's own values are filled in."""
    for running in (server, mutual_server):
        for call in running.events("ready")[0]["try"]:
            for word, file in {
                "CA.pem": "ca.pem",
                "ME.pem": "me.pem",
                "ME.key": "me.key",
                "TOKEN": "alice.token",
            }.items():
                call = call.replace(word, file)  # noqa: PLW2901 - one word after the other
            done = run(folder, call)
            assert done.returncode == 0, (call, done.stderr)


def _missing(folder: Path, authority: Authority) -> str:
    return "server.pem: expected a file that can be read, got: No such file or directory"


def _mismatched(folder: Path, authority: Authority) -> str:
    Pair(authority.issue(*LOCAL_NAMES).certificate, authority.issue(*LOCAL_NAMES).key).save(folder)
    return "server.key: expected the key of the certificate in server.pem, got another key"


def _expired(folder: Path, authority: Authority) -> str:
    authority.issue(*LOCAL_NAMES, not_before=-DAY, not_after=-HOUR).save(folder)
    return "server.pem: expected a certificate that is valid now, "


@pytest.mark.parametrize("spoil", [_missing, _mismatched, _expired])
def test_invalid_files_end_server(tmp_path, authority, spoil):
    """At once, with one line that names the setting, the file, what was expected and what came."""
    expected = spoil(tmp_path, authority)
    settings = ("--set", "security.tls.cert_file=server.pem", "--set", "security.tls.key_file=server.key")
    server = ServerProcess(*settings, folder=tmp_path)
    assert server.wait() == 2
    (line,) = server.log
    assert line.startswith(f"inferd: security.tls: {expected}")


def test_warns_if_open_to_other_machines(tmp_path):
    """The first lines of the log name what is open, and what to set; this host name is not known to be local."""
    server = ServerProcess("--host", "not-this-machine.invalid", folder=tmp_path)
    assert server.wait() == 1
    warnings = [line for line in map(str.strip, server.log) if '"level":"warning"' in line]
    assert ["no TLS" in warnings[0], "no authentication" in warnings[1]] == [True, True]
    assert "security.tls.cert_file and security.tls.key_file" in warnings[0]
    assert "security.tokens_file, security.jwt or security.tls.client_certificates" in warnings[1]
