"""What an operator is warned of."""

import pytest

from inferd.config.settings import Settings
from inferd.security.tls.transport import insecure_settings

_TLS = {"cert_file": "server.pem", "key_file": "server.key"}


def _warned_of(host, security=None):
    settings = Settings.model_validate({"server": {"host": host}, "security": security or {}})
    return [insecure.text.partition(":")[0] for insecure in insecure_settings(settings)]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "unix:/run/a", "unix-abstract:a"]
)
def test_this_machine_only(host):
    """Nothing to warn of."""
    assert _warned_of(host) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "inferd.internal", "localhost.example.com"])
def test_other_machines(host):
    """Both are told, whatever the address."""
    assert _warned_of(host) == ["no TLS", "no authentication"]


@pytest.mark.parametrize(
    ("security", "left"),
    [
        ({"tokens_file": "tokens.yaml"}, ["no TLS"]),
        ({"tls": _TLS, "tokens_file": "tokens.yaml"}, []),
        ({"tls": _TLS}, ["no authentication"]),
        ({"tls": _TLS | {"client_ca_file": "ca.pem", "client_certificates": "required"}}, []),
    ],
)
def test_what_has_been_done_about_it(security, left):
    """Each of them by itself; client certificates are both."""
    assert _warned_of("0.0.0.0", security) == left
