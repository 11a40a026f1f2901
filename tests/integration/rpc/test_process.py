"""Exits and forks of a process with a server."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests.patience import PATIENCE_S

PREAMBLE = """
import os, sys, threading
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
"""

SERVER = """
import grpc
from inferd.rpc import Server, callback_unary

def make():
    server = Server()
    server.add_registered_method_handlers("x.Y", {
        "Echo": callback_unary(lambda call, message: call.reply(message)),
        "Stuck": grpc.unary_unary_rpc_method_handler(lambda request, context: threading.Event().wait()),
    })
    return server, server.add_insecure_port("127.0.0.1:0")

def call(port, method, timeout=120):
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        return channel.unary_unary(f"/x.Y/{method}")(b"x", timeout=timeout)
"""

SCRIPTS = {
    "running at exit": "server, port = make(); server.start(); assert call(port, 'Echo') == b'x'",
    "running at exit after an error": "server, port = make(); server.start(); sys.exit(7)",
    "never started": "server, port = make()",
    "never started, then stopped": "server, port = make(); server.stop(None)",
    "stopped": "server, port = make(); server.start(); server.stop(None)",
    "stopping with a grace": "server, port = make(); server.start(); server.stop(30)",
    "dropped while running": "server, port = make(); server.start(); del server",
    "with a stuck handler": """
        server, port = make(); server.start()
        try:
            call(port, "Stuck", 0.1)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    """,
}


def run(script):
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_process_exits(name):
    """In any state of a server, the interpreter neither hangs nor crashes."""
    done = run(PREAMBLE + SERVER + textwrap.dedent(SCRIPTS[name]))
    assert done.returncode == (7 if "error" in name else 0), done.stderr
    assert "Traceback" not in done.stderr


def test_fork_before_grpc():
    """Each child then has a server of its own."""
    script = """
    child = os.fork()
    exec(server_code)
    server, port = make()
    server.start()
    assert call(port, "Echo") == b"x"
    server.stop(None)
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.waitstatus_to_exitcode(status))
    """
    done = run(PREAMBLE + f"server_code = {SERVER!r}\n" + textwrap.dedent(script))
    assert done.returncode == 0, done.stderr


def test_child_does_not_wait_for_its_parents_server():
    """A fork with a running server is not supported, but the child exits, and the server serves on."""
    script = """
    server, port = make()
    server.start()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert call(port, "Echo") == b"x"
        server.stop(None)
        sys.exit(os.waitstatus_to_exitcode(status))
    # Waiting would hang here.
    import atexit, inferd.rpc.server
    inferd.rpc.server._EXIT_TIMEOUT_S = 3600
    atexit._run_exitfuncs()
    os._exit(0)
    """
    done = run(PREAMBLE + SERVER + textwrap.dedent(script))
    assert done.returncode == 0, done.stderr
