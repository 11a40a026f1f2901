"""A server on a Unix socket: permissions, clients, and the file."""

import json
import os
import signal
import stat
import subprocess
import urllib.request
from pathlib import Path

import grpc
import pytest

from inferd._generated.inferd.v1 import inference_pb2 as v1
from inferd._generated.inferd.v1.inference_pb2_grpc import InferenceServiceStub
from tests.patience import PATIENCE_S
from tests.server import BIN, ServerProcess, serving

TIMEOUT_S = PATIENCE_S


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "inferd.sock"


@pytest.fixture(scope="module")
def server(path):
    """Starts where a killed server has left its socket."""
    killed = ServerProcess("--host", f"unix:{path}")
    killed.wait_ready()
    assert killed.stop(signal.SIGKILL) == -signal.SIGKILL
    assert path.is_socket()
    with serving("--host", f"unix://{path}", "--set", "log.level=debug") as running:
        yield running


def _inferd(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([BIN / "inferd", *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_log_has_addresses(server, path):
    """In the form for clients. Probes and metrics have a port on loopback; inference has none."""
    (listening,) = server.events("listening")
    assert "http" not in listening
    assert server.rest is None
    assert listening["grpc"] == server.grpc == f"unix:{path}"
    assert server.http.startswith("127.0.0.1:")
    assert urllib.request.urlopen(f"http://{server.http}/readyz", timeout=TIMEOUT_S).status == 200
    assert not [line for line in server.log if "no TLS" in line or "no authentication" in line]


def test_commands_use_address(server):
    """`inferd health` and `infer`, and the examples in the log."""
    assert _inferd("health", "--address", server.grpc).stdout == "SERVING\n"
    assert "digits" in _inferd("models", "--address", server.grpc).stdout
    answer = _inferd("infer", "digits", "--address", server.grpc, "--input", f"X={json.dumps([[0.0] * 64])}")
    assert answer.returncode == 0, answer.stderr
    (ready,) = server.events("ready")
    assert any(server.grpc in command for command in ready["try"])


def test_calls_are_logged(server):
    """With the peer ``unix:``."""
    with grpc.insecure_channel(server.grpc) as channel:
        listed = InferenceServiceStub(channel).ListModels(
            v1.ListModelsRequest(), timeout=TIMEOUT_S, metadata=[("x-request-id", "over-a-socket")]
        )
    assert [model.name for model in listed.models] == ["digits"]
    assert server.wait_event("access", request_id="over-a-socket")["peer"] == "unix:"


def test_second_server_does_not_replace_socket(server, path):
    """By default, gRPC replaces it: callers would reach the second server, and the first would not notice."""
    other = ServerProcess("--host", f"unix:{path}")
    assert other.wait() == 1
    assert f"server.host (--host): cannot listen on unix:{path}: another server listens there" in other.text
    assert _inferd("health", "--address", server.grpc).stdout == "SERVING\n"


def test_permissions_and_removal(tmp_path):
    """Permissions follow the umask of the process; the server removes its socket when it stops."""
    path = tmp_path / "inferd.sock"
    before = os.umask(0o117)
    try:
        server = ServerProcess("--host", f"unix:{path}", "--set", "server.metrics_host=localhost")
    finally:
        os.umask(before)
    server.wait_ready()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert server.http.startswith("localhost:")
    assert server.stop() == 0
    assert not path.exists()
