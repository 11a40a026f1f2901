"""`inferd health` against grpcio's health service, over real sockets."""

import subprocess
import sys

import pytest

from tests.certificates import Authority, server_credentials
from tests.patience import PATIENCE_S
from tests.unit.client.fake_service import serving


def test_exits_0_if_serving(inferd, server):
    """The status is on stdout."""
    result = inferd("health", "--address", server.address)
    assert (result.exit_code, result.out, result.err) == (0, "SERVING\n", "")


def test_exits_1_if_not_serving(inferd, server):
    """The status is on stderr."""
    server.drain()
    result = inferd("health", "--address", server.address)
    assert (result.exit_code, result.out, result.err) == (1, "", f"inferd: {server.address}: NOT_SERVING\n")


def test_service_by_name(inferd, server):
    """The name is sent; an unknown one is an error that names it."""
    result = inferd("health", "--address", server.address, "--service", "liveness")
    assert (result.exit_code, result.out) == (1, "")
    assert result.err == f"inferd: {server.address}: NOT_FOUND: unknown service 'liveness'\n"


def test_unreachable_server(inferd):
    """A refused connection fails at once."""
    result = inferd("health", "--address", "127.0.0.1:1")
    assert result.exit_code == 1
    assert result.err.startswith("inferd: 127.0.0.1:1: UNAVAILABLE: ")
    assert result.err.count("\n") == 1


def test_over_tls(inferd, service, tmp_path):
    """The CA certificate is required, and the name in the certificate may differ from the address."""
    authority = Authority()
    ca = authority.save(tmp_path)
    with serving(service, server_credentials(authority.issue("inferd.test"))) as server:
        assert inferd("health", "-a", server.address, "--ca", ca, "--server-name", "inferd.test").exit_code == 0
        assert inferd("health", "-a", server.address, "--ca", ca, "--server-name", "other.test").exit_code == 1
        assert inferd("health", "-a", server.address).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--key", "key.pem"), "certificate and key: expected both or none"),
        (("--ca", "/no/such.pem"), "/no/such.pem"),
        (("--address", "dns://inferd:8001"), "expected HOST:PORT"),
        (("--address", "inferd"), 'address is "inferd", expected HOST:PORT or unix:PATH, got no port'),
        (("--timeout", "nan"), "--timeout: expected at least 0 seconds, got nan"),
        (("--timeout", "-1"), "--timeout: expected at least 0 seconds, got -1"),
    ],
)
def test_invalid_options_are_usage_errors(inferd, arguments, message):
    """Exit code 2, and the reason."""
    result = inferd("health", *arguments)
    assert (result.exit_code, result.out) == (2, "")
    assert message in result.err


def test_imports_little():
    """Neither the client nor the server is imported: probes run over and over."""
    code = (
        "import sys; from inferd.cli import main; main(['health', '-a', '127.0.0.1:1'])\n"
        "heavy = {'numpy', 'google.protobuf', 'onnxruntime', 'inferd.client', 'inferd.config'}\n"
        "print('HEAVY', heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "HEAVY set()" in done.stdout
