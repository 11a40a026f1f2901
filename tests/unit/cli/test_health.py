"""`inferd health` against grpcio's own health service, over real sockets."""

import subprocess
import sys

import pytest

from tests.certificates import Authority, server_credentials
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import serving


def test_serving_is_success(inferd, server):
    """Exit code 0, and the status on stdout."""
    ended = inferd("health", "--address", server.address)
    assert (ended.exit_code, ended.out, ended.err) == (0, "SERVING\n", "")


def test_not_serving_is_failure(inferd, server):
    """Exit code 1, and the server's word on stderr."""
    server.drain()
    ended = inferd("health", "--address", server.address)
    assert (ended.exit_code, ended.out, ended.err) == (1, "", f"inferd: {server.address}: NOT_SERVING\n")


def test_services_are_asked_for_by_name(inferd, server):
    """The name travels; one that the server does not have is an error that names it."""
    ended = inferd("health", "--address", server.address, "--service", "liveness")
    assert (ended.exit_code, ended.out) == (1, "")
    assert ended.err == f"inferd: {server.address}: NOT_FOUND: it knows no service 'liveness'\n"


def test_nobody_there_is_failure(inferd):
    """A refused connection is not waited on."""
    ended = inferd("health", "--address", "127.0.0.1:1")
    assert ended.exit_code == 1
    assert ended.err.startswith("inferd: 127.0.0.1:1: UNAVAILABLE: ")
    assert ended.err.count("\n") == 1


def test_over_tls(inferd, service, tmp_path):
    """With the authority the answer comes, also under another name than the address's; without, none does."""
    authority = Authority()
    ca = authority.save(tmp_path)
    with serving(service, server_credentials(authority.issue("inferd.test"))) as server:
        assert inferd("health", "-a", server.address, "--ca", ca, "--server-name", "inferd.test").exit_code == 0
        assert inferd("health", "-a", server.address, "--ca", ca, "--server-name", "other.test").exit_code == 1
        assert inferd("health", "-a", server.address).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--key", "key.pem"), "certificate and key: expected both or none"),
        (("--ca", "/no/such.pem"), "/no/such.pem"),
        (("--address", "http://inferd:8001"), "expected HOST:PORT"),
        (("--address", "inferd"), 'address is "inferd", expected HOST:PORT or unix:PATH, got no port'),
        (("--timeout", "nan"), "timeout_s is nan, expected at least 0"),
        (("--timeout", "-1"), "timeout_s is -1.0, expected at least 0"),
    ],
)
def test_wrong_options_are_usage_errors(inferd, arguments, told):
    """Exit code 2, and what is wrong."""
    ended = inferd("health", *arguments)
    assert (ended.exit_code, ended.out) == (2, "")
    assert told in ended.err


def test_probing_is_quick():
    """Neither the client nor anything of the server is imported: probes start again and again."""
    code = (
        "import sys; from inferd.cli import main; main(['health', '-a', '127.0.0.1:1'])\n"
        "heavy = {'numpy', 'google.protobuf', 'onnxruntime', 'inferd.client', 'inferd.config'}\n"
        "print('HEAVY', heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "HEAVY set()" in done.stdout
