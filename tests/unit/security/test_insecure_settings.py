"""Warnings of insecure settings."""

import pytest

from inferd.config.settings import Settings
from inferd.security.tls.transport import insecure_settings

_TLS = {"cert_file": "server.pem", "key_file": "server.key"}


def _warnings(host, security=None):
    settings = Settings.model_validate({"server": {"host": host}, "security": security or {}})
    return [insecure.text.partition(":")[0] for insecure in insecure_settings(settings)]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "unix:/run/a", "unix-abstract:a"]
)
def test_no_warnings_on_loopback(host):
    """Only this machine can connect."""
    assert _warnings(host) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "inferd.internal", "localhost.example.com"])
def test_warns_when_other_machines_can_connect(host):
    """Of both, whatever the address."""
    assert _warnings(host) == ["no TLS", "no authentication"]


@pytest.mark.parametrize("host", ["127.0.0.1", "unix:/run/a"])
def test_warns_when_other_machines_can_connect_over_http(host):
    """Whose address may be another one than that of gRPC."""
    server = {"host": host, "http": {"host": "0.0.0.0"}}
    assert [*insecure_settings(Settings.model_validate({"server": server}))]
    off = {**server, "http_port": None}
    assert not [*insecure_settings(Settings.model_validate({"server": off}))]


@pytest.mark.parametrize(
    ("security", "left"),
    [
        ({"tokens_file": "tokens.yaml"}, ["no TLS"]),
        ({"tls": _TLS, "tokens_file": "tokens.yaml"}, []),
        ({"tls": _TLS}, ["no authentication"]),
        ({"tls": _TLS | {"client_ca_file": "ca.pem", "client_certificates": "required"}}, []),
    ],
)
def test_does_not_warn_of_what_is_protected(security, left):
    """Each separately; client certificates count as authentication."""
    assert _warnings("0.0.0.0", security) == left
